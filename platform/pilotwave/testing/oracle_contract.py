"""What every oracle must do, as tests: subclass :class:`OracleContract` and return its configuration.

May import pytest, numpy, pilotwave's types, protocols and execution; the oracle's own packages come with it.
"""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from pilotwave.archive.records import evaluation_from_json, evaluation_to_json
from pilotwave.config.components import OracleConfig
from pilotwave.errors import OracleFailure
from pilotwave.execution.oracle_process import OracleProcess
from pilotwave.execution.question import OracleIdentity, ask, check_known_answer
from pilotwave.protocols import Oracle, QueryContext
from pilotwave.samples import SAMPLE_TYPES, ArraySample, ImageSample, MoleculeSample, Sample
from pilotwave.types import Answer, Evaluation, Status

CONTEXT = QueryContext("p0000-00", 1)


def one_of_each_media() -> dict[str, Sample]:
    """Returns a plain sample of every media."""
    helium = "\n  pilotwave\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0 0.0 0.0 He  0  0\nM  END\n"
    return {
        "array": ArraySample(np.array([0.5, -1.0], dtype=np.float32)),
        "image": ImageSample(np.zeros((4, 4, 1), dtype=np.uint8)),
        "molecule": MoleculeSample(helium, "[He]"),
    }


def garbage_of(media: str) -> list[Sample]:
    """Returns samples of a media that are legal as samples and that many an oracle cannot judge."""
    if media == "molecule":
        counts = "  1  0  0  0  0  0  0  0  0  0999 V2000\n"
        blocks = [
            "",
            "no mol block",
            "\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n",
            f"\n\n\n{counts}    0.0000    0.0000    0.0000 Qq  0  0\nM  END\n",
            f"\n\n\n{counts}       nan    0.0000    0.0000 He  0  0\nM  END\n",
            f"\n\n\n{counts}    0.0000    0.0000    0.0000 C   0  0\nM  END\n",
            "\n\n\n  2  0  0  0  0  0  0  0  0  0999 V2000\n"
            + "    0.0000    0.0000    0.0000 He  0  0\n" * 2
            + "M  END\n",
        ]
        return [MoleculeSample(block, "?") for block in blocks]
    if media == "image":
        return [ImageSample(np.zeros((0, 3, 3), dtype=np.uint8))]
    return [
        ArraySample(np.zeros(0, dtype=np.float32)),
        ArraySample(np.full(3, np.nan, dtype=np.float32)),
        ArraySample(np.full((2, 2), np.inf, dtype=np.float32)),
    ]


class OracleContract:
    """Tests of :class:`pilotwave.protocols.Oracle`; subclass it in a class named ``Test…``."""

    def config(self) -> OracleConfig:
        """Returns the configuration of the oracle under test; build() must work here and in a child process."""
        raise NotImplementedError

    def samples(self) -> list[Sample]:
        """Returns samples that the oracle answers; by default the known one."""
        known = self.config().build().known_answer()
        assert known is not None, "an oracle without a known answer must override samples()"
        return [known.sample]

    def garbage(self) -> list[Sample]:
        """Returns samples of the accepted media that the oracle may refuse but must survive."""
        return [sample for media in sorted(self.config().media) for sample in garbage_of(media)]

    @pytest.fixture
    def oracle(self) -> Oracle:
        """Builds the oracle."""
        return self.config().build()

    def test_it_says_what_it_is(self, oracle: Oracle) -> None:
        assert isinstance(oracle, Oracle)
        assert oracle.name
        assert oracle.version
        assert isinstance(oracle.unit, str)
        assert isinstance(oracle.deterministic, bool)
        assert oracle.media
        assert oracle.media <= set(SAMPLE_TYPES)
        assert oracle.media <= self.config().media
        assert OracleIdentity.of(oracle) == OracleIdentity.of(self.config().build())

    def test_the_known_answer_holds(self, oracle: Oracle) -> None:
        known = oracle.known_answer()
        if known is None:
            pytest.skip("this oracle has no known answer")
        assert known.sample.media in oracle.media
        check_known_answer(OracleIdentity.of(oracle), known, ask(oracle, known.sample, CONTEXT, "contract"))

    def test_answers_are_finite_and_travel(self, oracle: Oracle) -> None:
        for sample in self.samples():
            answer = oracle.evaluate(sample, CONTEXT)
            assert isinstance(answer, Answer)
            assert math.isfinite(answer.value)
            assert answer.fidelity
            assert all(isinstance(number, float) for number in answer.properties.values())
            assert pickle.loads(pickle.dumps(answer)) == answer
            evaluation = ask(oracle, sample, CONTEXT, "contract")
            assert evaluation_from_json(evaluation_to_json(evaluation)) == evaluation

    def test_the_same_question_gets_the_same_answer_if_that_is_claimed(self, oracle: Oracle) -> None:
        if not oracle.deterministic:
            pytest.skip("this oracle does not claim to be deterministic")
        samples = self.samples()
        forward = [oracle.evaluate(sample, CONTEXT).value for sample in samples]
        other = self.config().build()
        backward = [other.evaluate(sample, QueryContext("another", 2)).value for sample in reversed(samples)]
        assert backward[::-1] == forward

    def test_the_sample_is_left_as_it_was(self, oracle: Oracle) -> None:
        for sample in self.samples():
            before = sample.identity(), sample.payload()
            oracle.evaluate(sample, CONTEXT)
            assert (sample.identity(), sample.payload()) == before

    def test_other_media_are_refused(self, oracle: Oracle) -> None:
        for media, sample in one_of_each_media().items():
            if media in oracle.media:
                continue
            with pytest.raises(OracleFailure) as caught:
                oracle.evaluate(sample, CONTEXT)
            assert caught.value.stage == "media"
            assert media in str(caught.value)

    def test_garbage_is_answered_or_fails_with_a_stage(self, oracle: Oracle) -> None:
        for sample in self.garbage():
            failure = None
            try:
                answer = oracle.evaluate(sample, CONTEXT)
            except OracleFailure as error:
                failure = error
            if failure is None:
                assert math.isfinite(answer.value)
            else:
                assert failure.stage
                assert str(failure)
                assert "\n" not in str(failure)

    def test_a_fresh_process_answers_the_same(self, oracle: Oracle) -> None:
        host = OracleProcess(self.config(), name="contract")
        try:
            host.preflight()
            assert host.start() == OracleIdentity.of(oracle)
            for sample in self.samples():
                there = host.evaluate(sample, CONTEXT)
                assert there.status is Status.OK, there.failure
                if oracle.deterministic:
                    assert _result(there) == _result(ask(oracle, sample, CONTEXT, "contract"))
        finally:
            host.close()


def _result(evaluation: Evaluation) -> tuple[object, ...]:
    return evaluation.value, evaluation.fidelity, evaluation.cost, dict(evaluation.properties)


__all__ = ["OracleContract", "garbage_of", "one_of_each_media"]
