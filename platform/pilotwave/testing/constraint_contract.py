"""What every constraint must do, as tests: subclass :class:`ConstraintContract` and return its configuration.

May import pytest, pilotwave's protocols and samples, and the samples of the oracle contract.
"""

from __future__ import annotations

import math
import pickle

import pytest

from pilotwave.config.components import ConstraintConfig
from pilotwave.protocols import Constraint, Verdict
from pilotwave.samples import SAMPLE_TYPES, Sample
from pilotwave.testing.oracle_contract import garbage_of


class ConstraintContract:
    """Tests of :class:`pilotwave.protocols.Constraint`; subclass it in a class named ``Test…``."""

    def config(self) -> ConstraintConfig:
        """Returns the configuration of the constraint under test."""
        raise NotImplementedError

    def passing(self) -> list[Sample]:
        """Returns samples that pass."""
        raise NotImplementedError

    def refused(self) -> list[Sample]:
        """Returns samples that are refused."""
        raise NotImplementedError

    @pytest.fixture
    def constraint(self) -> Constraint:
        """Builds the constraint."""
        return self.config().build()

    def test_it_says_what_it_is(self, constraint: Constraint) -> None:
        assert isinstance(constraint, Constraint)
        assert constraint.name
        assert constraint.media
        assert constraint.media <= set(SAMPLE_TYPES)
        assert constraint.media == self.config().media

    def test_good_samples_pass_and_are_measured(self, constraint: Constraint) -> None:
        for sample in self.passing():
            verdict = constraint.check(sample)
            assert verdict.reason is None, sample.label()
            _check_properties(verdict)

    def test_bad_samples_are_refused_with_a_reason(self, constraint: Constraint) -> None:
        for sample in self.refused():
            verdict = constraint.check(sample)
            assert verdict.reason, sample.label()
            assert "\n" not in verdict.reason
            _check_properties(verdict)

    def test_garbage_is_judged_and_never_raises(self, constraint: Constraint) -> None:
        for media in constraint.media:
            for sample in garbage_of(media):
                verdict = constraint.check(sample)
                assert verdict.reason is None or verdict.reason.strip()
                _check_properties(verdict)

    def test_judging_is_repeatable_and_leaves_the_sample_as_it_was(self, constraint: Constraint) -> None:
        other = self.config().build()
        for sample in [*self.passing(), *self.refused()]:
            before = sample.identity(), sample.payload()
            assert constraint.check(sample) == constraint.check(sample) == other.check(sample)
            assert (sample.identity(), sample.payload()) == before

    def test_configuration_and_verdicts_travel(self, constraint: Constraint) -> None:
        config = self.config()
        assert pickle.loads(pickle.dumps(config)) == config
        assert type(config).model_validate_json(config.model_dump_json()) == config
        for sample in self.passing():
            verdict = constraint.check(sample)
            assert pickle.loads(pickle.dumps(verdict)) == verdict


def _check_properties(verdict: Verdict) -> None:
    assert all(isinstance(number, float) and math.isfinite(number) for number in verdict.properties.values())


__all__ = ["ConstraintContract"]
