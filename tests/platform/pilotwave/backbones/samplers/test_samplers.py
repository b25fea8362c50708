"""The samplers against diffusers' schedulers, against a Gaussian whose denoiser is known, and with hooks."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotwave.backbones.samplers.ddim import (
    cosine_alphas_cumprod,
    ddim,
    ddim_schedule,
    ddim_timesteps,
    linear_alphas_cumprod,
)
from pilotwave.backbones.samplers.dpm_solver_sde import dpm_solver_sde_schedule
from pilotwave.backbones.samplers.euler_ancestral import euler_ancestral, euler_ancestral_schedule, karras_sigmas
from pilotwave.backbones.samplers.euler_maruyama import (
    clean_from_velocity,
    euler_maruyama,
    euler_maruyama_schedule,
)
from pilotwave.backbones.samplers.schedule import run_sampler


def network(sample, timestep):
    """Something smooth and not linear; what it predicts is for the sampler to say."""
    return torch.sin(1.7 * sample + 0.003 * float(timestep)) - 0.2 * sample


def noise_like(steps, seed=0, shape=(3, 4, 5)):
    return torch.randn(steps + 1, *shape, generator=torch.Generator().manual_seed(seed))


def in_double_precision(scheduler):
    """diffusers keeps its table in float32, where 1 - alpha near the clean end has three digits left."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()


def trajectory(model, noise, schedule, **options):
    """All samples on the way, seen through the hook, and the final one."""
    seen = []

    def watch(state, clean):
        seen.append(state.noisy)
        return clean

    seen.append(ddim(model, noise, schedule, hook=watch, **options))
    return torch.stack(seen)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    ("spacing", "steps"), [*(("trailing", k) for k in (1, 4, 8, 20)), *(("leading", k) for k in (1, 6, 8, 30))]
)
def test_ddim_is_diffusers_ddim_step_by_step(prediction_type, spacing, steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        prediction_type=prediction_type,
        timestep_spacing=spacing,
        clip_sample=False,
        beta_schedule="squaredcos_cap_v2" if prediction_type == "v_prediction" else "linear",
    )
    scheduler.set_timesteps(steps)
    in_double_precision(scheduler)
    noise = noise_like(steps).double()
    sample = noise[0] * scheduler.init_noise_sigma
    theirs = [sample]
    for index, timestep in enumerate(scheduler.timesteps):
        sample = scheduler.step(
            network(sample, timestep), timestep, sample, eta=1.0, variance_noise=noise[index + 1]
        ).prev_sample
        theirs.append(sample)
    schedule = ddim_schedule(scheduler.alphas_cumprod, steps, spacing)
    ours = trajectory(lambda x, step: network(x, step.timestep), noise, schedule, prediction_type=prediction_type)
    assert [step.timestep for step in schedule.steps] == scheduler.timesteps.tolist()
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-9, atol=1e-9)


def test_ddim_with_clipping_and_zero_terminal_snr_is_diffusers_ddim():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=True, rescale_betas_zero_snr=True
    )
    scheduler.set_timesteps(8)
    in_double_precision(scheduler)
    assert scheduler.alphas_cumprod[-1] == 0
    noise = noise_like(8).double()
    sample = noise[0]
    for index, timestep in enumerate(scheduler.timesteps):
        sample = scheduler.step(
            network(sample, timestep),
            timestep,
            sample,
            eta=1.0,
            variance_noise=noise[index + 1],
            use_clipped_model_output=True,
        ).prev_sample
    schedule = ddim_schedule(scheduler.alphas_cumprod, 8)
    model = lambda x, step: network(x, step.timestep)  # noqa: E731
    ours = ddim(model, noise, schedule, prediction_type="v_prediction", clip_sample=1.0)
    torch.testing.assert_close(ours, sample, rtol=1e-7, atol=1e-7)  # sines differ by processor
    with pytest.raises(ValueError, match="zero terminal SNR"):
        ddim(model, noise, schedule, prediction_type="epsilon")


def test_beta_schedules_are_diffusers_ones():
    from diffusers import DDIMScheduler

    for ours, name in ((linear_alphas_cumprod(), "linear"), (cosine_alphas_cumprod(), "squaredcos_cap_v2")):
        theirs = DDIMScheduler(beta_schedule=name).alphas_cumprod.double()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_euler_ancestral_is_diffusers_euler_ancestral_step_by_step(steps):
    from diffusers import EulerAncestralDiscreteScheduler

    scheduler = EulerAncestralDiscreteScheduler(timestep_spacing="trailing", prediction_type="epsilon")
    scheduler.set_timesteps(steps)
    shape = (3, 4, 5)
    generator = torch.Generator().manual_seed(11)
    injected = torch.stack([torch.randn(shape, generator=generator) for _ in range(steps)])
    noise = torch.cat([noise_like(0, seed=3), injected])
    sample = noise[0] * scheduler.init_noise_sigma
    theirs = [sample]
    generator.manual_seed(11)
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(network(sample, sigma), timestep, sample, generator=generator).prev_sample
        theirs.append(sample)
    seen = []

    def watch(state, clean):
        seen.append(state.noisy)
        return clean

    final = euler_ancestral(
        lambda x, step: x - step.noise_level * network(x, step.noise_level), noise, scheduler.sigmas, watch
    )
    torch.testing.assert_close(torch.stack([*seen, final]), torch.stack(theirs), rtol=3e-4, atol=3e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_dpm_solver_sde_is_the_paper_s_formula(steps):
    """Written as in the paper, in lambda = -log(sigma) and with phi = expm1, not through Euler ancestral steps."""
    sigmas = karras_sigmas(steps, 0.02, 8.0)
    noise = noise_like(steps).double()
    sample, previous, previous_width = float(sigmas[0]) * noise[0], None, None
    for index, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas.tolist())):
        clean = network(sample, sigma)
        if sigma_next == 0:
            sample = clean
            break
        width = math.log(sigma) - math.log(sigma_next)
        phi = -math.expm1(-2 * width)
        drift = clean if previous is None else clean + 0.5 * (clean - previous) * width / previous_width
        shrink = sigma_next / sigma * math.exp(-width)
        sample = shrink * sample + phi * drift + sigma_next * math.sqrt(phi) * noise[index + 1]
        previous, previous_width = clean, width
    ours = run_sampler(lambda x, step: network(x, step.noise_level), noise, dpm_solver_sde_schedule(sigmas))
    torch.testing.assert_close(ours, sample, rtol=1e-9, atol=1e-9)


def test_dpm_solver_sde_is_of_second_order_on_a_gaussian():
    """The error of the final variance falls as 1 / steps² for it, and as 1 / steps for Euler ancestral steps.

    Everything is linear in the noise, so the variance is exact: the sum of the squared response to each noise.
    """

    def error(schedule_of, steps):
        schedule = schedule_of(torch.cat([torch.logspace(1, -1, steps, dtype=torch.float64), torch.zeros(1)]))
        final = float(schedule.steps[-1].noise_level)
        noise = torch.eye(steps + 1, dtype=torch.float64)[:, :, None]
        response = run_sampler(lambda x, step: x / (1 + step.noise_level**2), noise, schedule)
        best = run_sampler(  # the last step shrinks to the posterior mean, whatever came before
            lambda x, step: x / (1 + step.noise_level**2), torch.eye(2, dtype=torch.float64)[:, :, None],
            euler_ancestral_schedule([final, 0.0]),
        )  # fmt: skip
        exact = (1 + final**2) * float(best.square().sum()) / final**2
        return abs(float(response.square().sum()) - exact)

    for schedule_of, order in ((dpm_solver_sde_schedule, 2), (euler_ancestral_schedule, 1)):
        ratio = error(schedule_of, 160) / error(schedule_of, 320)
        assert 0.75 * 2**order < ratio < 1.35 * 2**order, (order, ratio)


SCHEDULES = {
    "ddim": lambda steps: ddim_schedule(cosine_alphas_cumprod(), steps),
    "ddim, linear betas": lambda steps: ddim_schedule(linear_alphas_cumprod(), steps),
    "euler ancestral": lambda steps: euler_ancestral_schedule(karras_sigmas(steps, 0.01, 60.0, 3.0)),
    "dpm-solver sde": lambda steps: dpm_solver_sde_schedule(karras_sigmas(steps, 0.01, 60.0, 7.0)),
    "euler maruyama": lambda steps: euler_maruyama_schedule(torch.linspace(0, 1, steps + 1)),
    "flow without diffusion": lambda steps: euler_maruyama_schedule(torch.linspace(0, 1, steps + 1), diffusion=0.0),
}
MEAN, VARIANCE = 1.3, 0.36


def gaussian_denoiser(sample, step):
    """The exact posterior mean of N(MEAN, VARIANCE) seen through the step's noise."""
    signal, noise = step.signal_level, step.noise_level
    gain = signal * VARIANCE / (signal**2 * VARIANCE + noise**2)
    return MEAN + gain * (sample - signal * MEAN)


def exact_moments(schedule):
    """Mean and variance of the finished sample: with this denoiser every step is linear in a Gaussian."""
    size = len(schedule.steps) + 2  # response to a constant, then to each noise
    response = torch.zeros(size, dtype=torch.float64)
    response[1] = schedule.init_noise_sigma
    previous = torch.zeros(size, dtype=torch.float64)
    for step in schedule.steps:
        offset = gaussian_denoiser(0.0, step)
        clean = (gaussian_denoiser(1.0, step) - offset) * response
        clean[0] += offset
        response = step.clean_weight * clean + step.previous_clean_weight * previous + step.noisy_weight * response
        response[step.index + 2] += step.noise_weight
        previous = clean
    return float(response[0]), float(response[1:].square().sum())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_gaussian_is_sampled_with_its_mean_and_variance(name):
    """Many samples have the moments that the steps must give, which tend to the Gaussian's with the steps."""
    coarse, fine = (exact_moments(SCHEDULES[name](steps)) for steps in (250, 1000))
    for got, want in zip(fine, (MEAN, VARIANCE), strict=True):
        assert got == pytest.approx(want, rel=0.025)
    assert abs(fine[1] - VARIANCE) < max(0.35 * abs(coarse[1] - VARIANCE), 0.001 * VARIANCE)

    noise = torch.randn(251, 20_000, 1, generator=torch.Generator().manual_seed(4))
    finished = run_sampler(gaussian_denoiser, noise, SCHEDULES[name](250))
    assert finished.mean() == pytest.approx(coarse[0], abs=5 * (VARIANCE / 20_000) ** 0.5)
    assert finished.var() == pytest.approx(coarse[1], rel=5 * (2 / 20_000) ** 0.5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_hook_sees_every_step_and_shifts_the_sample(name):
    steps, noise = 6, noise_like(6)
    calls = []

    def shift(state, clean):
        calls.append((state.index, state.steps, state.noise_level, state.signal_level))
        assert state.noisy.shape == clean.shape
        return clean + 0.25

    original = noise.clone()
    schedule = SCHEDULES[name](steps)
    constant = torch.full((3, 4, 5), 2.0)
    finished = run_sampler(lambda sample, step: constant, noise, schedule, shift)
    torch.testing.assert_close(finished, constant + 0.25)
    assert [call[0] for call in calls] == list(range(6))
    assert all(call[1] == 6 for call in calls)
    levels = [call[2] for call in calls]
    assert levels == sorted(levels, reverse=True)
    assert torch.equal(noise, original)
    assert schedule.steps[-1].noise_weight == 0


def test_velocity_and_clean_sample_say_the_same():
    times = torch.linspace(0, 1, 9)
    clean, epsilon = torch.tensor([2.0]), torch.tensor([-1.0])
    for step in euler_maruyama_schedule(times).steps:
        sample = step.signal_level * clean + step.noise_level * epsilon
        torch.testing.assert_close(clean_from_velocity(clean - epsilon, sample, step), clean)


def test_the_flow_sde_step_is_its_formula():
    time, time_next, diffusion = 0.4, 0.55, 1.2
    step = euler_maruyama_schedule([0.0, time, time_next, 1.0], diffusion).steps[1]
    sample, clean = 0.7, -0.3
    velocity = (clean - sample) / (1 - time)
    score = -(sample - time * clean) / (1 - time) ** 2
    width = diffusion * (1 - time)
    expected = sample + (velocity + width / 2 * score) * (time_next - time)
    assert step.clean_weight * clean + step.noisy_weight * sample == pytest.approx(expected, rel=1e-12)
    assert step.noise_weight == pytest.approx((width * (time_next - time)) ** 0.5, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.floats(1e-3, 0.5), st.floats(1.0, 100.0), st.floats(1.0, 9.0))
def test_karras_levels_fall_from_the_largest_to_zero(steps, sigma_min, sigma_max, rho):
    levels = karras_sigmas(steps, sigma_min, sigma_max, rho)
    assert levels.shape == (steps + 1,)
    assert levels[0] == pytest.approx(sigma_max)
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()
    if steps > 1:
        assert levels[-2] == pytest.approx(sigma_min)


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="fall strictly"):
        euler_ancestral_schedule([1.0, 2.0, 0.0])
    with pytest.raises(ValueError, match="rise strictly"):
        euler_maruyama_schedule([0.0, 0.5, 0.9])
    with pytest.raises(ValueError, match="0 < sigma_min"):
        karras_sigmas(5, 2.0, 1.0)
    with pytest.raises(ValueError, match="training timesteps"):
        ddim_timesteps(2000, 1000)
    with pytest.raises(ValueError, match=r"steps \+ 1 = 6"):
        euler_ancestral(lambda x, s: x, noise_like(4), karras_sigmas(5, 0.1, 1.0))
    with pytest.raises(ValueError, match="prediction_type"):
        ddim(lambda x, s: x, noise_like(4), ddim_schedule(linear_alphas_cumprod(), 4), prediction_type="noise")


def test_euler_maruyama_runs_on_any_shape():
    out = euler_maruyama(lambda x, step: x * 0, noise_like(3, shape=(2, 7)), [0.0, 0.2, 0.7, 1.0])
    assert out.shape == (2, 7)
