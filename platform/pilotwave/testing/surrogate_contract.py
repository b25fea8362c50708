"""What every surrogate must do, as tests: subclass :class:`SurrogateContract` and give a factory.

May import: pytest, torch and :mod:`pilotwave.protocols`.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pilotwave.protocols import Surrogate


class SurrogateContract:
    """Tests of :class:`pilotwave.protocols.Surrogate`.

    Attributes:
        dim: Numbers per point in these tests.
    """

    dim = 6

    def make_surrogate(self, dim: int) -> Surrogate:
        """Returns a surrogate that knows nothing yet."""
        raise NotImplementedError

    def data(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Returns points (count, dim) and a smooth score (count,), float32."""
        points = torch.randn(count, self.dim, generator=torch.Generator().manual_seed(seed))
        return points, torch.sin(points[:, 0]) + 0.3 * points[:, 1]

    def test_shapes_with_and_without_data(self) -> None:
        surrogate, (points, values) = self.make_surrogate(self.dim), self.data(20)
        assert isinstance(surrogate, Surrogate)
        for known in (0, 20):
            if known:
                surrogate.append(points, values)
            for batch in (0, 1, 3):
                assert surrogate.mean(points[:batch]).shape == (batch,)
                assert surrogate.mean_gradient(points[:batch]).shape == (batch, self.dim)
                assert surrogate.mean_gradient(points[:batch]).isfinite().all()

    def test_the_gradient_is_the_mean_s(self) -> None:
        surrogate, (points, values) = self.make_surrogate(self.dim), self.data(40)
        surrogate.append(points, values)
        queries = self.data(5, seed=1)[0].double()
        gradient = surrogate.mean_gradient(queries).double()
        step = 1e-4
        for axis in torch.eye(self.dim, dtype=torch.float64):
            slope = (surrogate.mean(queries + step * axis) - surrogate.mean(queries - step * axis)) / (2 * step)
            torch.testing.assert_close(gradient @ axis, slope.double(), rtol=1e-3, atol=1e-4)

    def test_it_learns(self) -> None:
        surrogate, (points, values) = self.make_surrogate(self.dim), self.data(200)
        surrogate.append(points, values)
        queries, truth = self.data(100, seed=2)
        error = (surrogate.mean(queries) - truth).square().mean()
        assert error < 0.3 * truth.var()

    def test_answers_in_pieces_are_answers_at_once(self) -> None:
        points, values = self.data(30)
        whole, pieces = self.make_surrogate(self.dim), self.make_surrogate(self.dim)
        whole.append(points, values)
        for start, end in ((0, 1), (1, 12), (12, 12), (12, 30)):
            pieces.append(points[start:end], values[start:end])
        queries = self.data(7, seed=3)[0]
        torch.testing.assert_close(pieces.mean(queries), whole.mean(queries), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            pieces.mean_gradient(queries), whole.mean_gradient(queries), rtol=1e-3, atol=1e-3
        )

    @pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30, 1e300])
    def test_repeated_points_and_odd_scores_stay_finite(self, scale: float) -> None:
        surrogate, (points, values) = self.make_surrogate(self.dim), self.data(10)
        for _ in range(3):
            surrogate.append(points, scale * values.double())
            surrogate.append(points[:1].repeat(4, 1), scale * values[:4].double())
        for queries in (points, points + 1e-6, 1e6 * points):
            assert surrogate.mean(queries).isfinite().all()
            assert surrogate.mean_gradient(queries).isfinite().all()

    def test_what_is_not_finite_is_refused_and_not_learnt(self) -> None:
        surrogate, (points, values) = self.make_surrogate(self.dim), self.data(10)
        surrogate.append(points, values)
        before = surrogate.mean(points)
        with pytest.raises(ValueError, match="finite"):
            surrogate.append(points[:1], torch.tensor([float("nan")]))
        with pytest.raises(ValueError, match="finite"):
            surrogate.append(points[:1] * float("inf"), values[:1])
        with pytest.raises(ValueError, match="expected"):
            surrogate.append(points[:2], values[:1])
        assert torch.equal(surrogate.mean(points), before)


__all__ = ["SurrogateContract"]
