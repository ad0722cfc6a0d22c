"""The mastery table: strata, bits, bytes on disk, best templates, refusals."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftknow_eval.errors import MasteryError
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.table import (
    MasteryTable,
    TableMeta,
    half,
    pack_verdicts,
    stratum,
)

META = TableMeta(
    base="a/base",
    revision=None,
    fingerprint="ab" * 32,
    data="small",
    facts_digest="cd" * 32,
    templates_digest="ef" * 32,
    n_templates=3,
    samples_per_template=5,
    temperature=0.7,
    max_tokens=32,
    seed=0,
    engine={"engine": "stand-in"},
)


def make_fact(relation: str, split: str, row: int) -> Fact:
    subject = f"Subject {row}"
    return Fact(
        id=f"{relation}-{split}-{row:04d}",
        relation=relation,
        domain="ood" if relation == "P106" else "id",
        split=split,  # type: ignore[arg-type]
        subject=subject,
        question=f"What of {subject}?",
        answer="Rome",
        aliases=("Rome", "Roma"),
    )


FACTS = [make_fact("P19", "train", i) for i in range(6)]
FACTS += [make_fact("P19", "test", i) for i in range(4)]
FACTS += [make_fact("P106", "test", i) for i in range(8)]


def make_table(verdicts: np.ndarray) -> MasteryTable:
    return MasteryTable.build(FACTS[: len(verdicts)], pack_verdicts(verdicts), META)


@pytest.fixture
def verdicts() -> np.ndarray:
    return np.random.default_rng(0).random((len(FACTS), 3, 5)) < 0.4


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_strata_follow_the_protocols_intervals(counts: tuple[int, int]) -> None:
    # Expected: stratum 0 is R = 0, stratum i is R in ((i-1)/4, i/4], with exact fractions.
    n_correct, n_samples = counts
    ratio = Fraction(n_correct, n_samples)
    i = stratum(n_correct, n_samples)
    assert (i == 0) == (ratio == 0)
    assert i == 0 or Fraction(i - 1, 4) < ratio <= Fraction(i, 4)


def test_strata_at_the_borders_of_210_samples() -> None:
    # 210/4 = 52.5 and 3*210/4 = 157.5: no count lies on those borders; 105 lies on R = 1/2.
    wanted = {0: 0, 1: 1, 52: 1, 53: 2, 105: 2, 106: 3, 157: 3, 158: 4, 210: 4}
    assert {n: stratum(n, 210) for n in wanted} == wanted


@pytest.mark.parametrize("counts", [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        stratum(*counts)


def test_a_written_table_reads_back_whole(tmp_path: Path, verdicts: np.ndarray) -> None:
    path = tmp_path / "mastery.parquet"
    make_table(verdicts).write(path)
    table = MasteryTable.read(tmp_path)
    assert table.meta == META
    np.testing.assert_array_equal(table.verdicts(), verdicts)
    np.testing.assert_array_equal(table.column("n_correct"), verdicts.sum(axis=(1, 2)))
    assert table.rows["fact_digest"].to_pylist() == [fact.digest() for fact in FACTS]
    assert set(table.column("n_samples")) == {15}
    # The stored bits are the documented ones: template-major, little bit order.
    first = int.from_bytes(table.rows["verdicts"][0].as_py(), "little")
    assert [first >> i & 1 for i in range(15)] == verdicts[0].ravel().astype(int).tolist()


def test_equal_tables_are_equal_bytes(tmp_path: Path, verdicts: np.ndarray) -> None:
    make_table(verdicts).write(tmp_path / "a.parquet")
    make_table(verdicts.copy()).write(tmp_path / "b.parquet")
    MasteryTable.read(tmp_path / "a.parquet").write(tmp_path / "c.parquet")
    contents = {(tmp_path / f"{name}.parquet").read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_strata_are_looked_up_for_the_facts_held(verdicts: np.ndarray) -> None:
    table = make_table(verdicts[:6])
    strata = table.strata_of(FACTS)
    assert strata == {
        fact.id: stratum(int(v.sum()), 15) for fact, v in zip(FACTS[:6], verdicts, strict=False)
    }


def test_a_table_of_other_facts_is_refused(verdicts: np.ndarray) -> None:
    table = make_table(verdicts)
    other = dataclasses.replace(FACTS[2], aliases=("Paris",))
    with pytest.raises(MasteryError, match=r"belongs to other facts.*P19-train-0002.*probe"):
        table.strata_of([FACTS[0], other])
    with pytest.raises(MasteryError, match="holds none of the facts"):
        table.strata_of([make_fact("P36", "test", 1)])


def test_another_base_is_refused(verdicts: np.ndarray) -> None:
    make_table(verdicts).check_base("ab" * 32)
    with pytest.raises(MasteryError, match="'a/base'"):
        make_table(verdicts).check_base("00" * 32)


def test_the_best_template_is_chosen_on_train_facts_and_ties_go_low() -> None:
    verdicts = np.zeros((len(FACTS), 3, 5), bool)
    verdicts[:6, 1:, 0] = True  # templates 1 and 2 tie on the train facts
    verdicts[6:10, 0] = True  # template 0 would win on the test facts
    best = make_table(verdicts).best_templates()
    assert best["P19", 0] == best["P19", 1]
    assert (best["P19", 0].index, best["P19", 0].how) == (1, "train")
    assert (best["P19", 0].n_correct, best["P19", 0].n_samples) == (6, 30)


def test_without_train_facts_each_half_is_judged_by_the_other() -> None:
    verdicts = np.zeros((len(FACTS), 3, 5), bool)
    halves = [half(fact.digest()) for fact in FACTS[10:]]
    assert set(halves) == {0, 1}
    for i, own in enumerate(halves):
        verdicts[10 + i, 2 if own else 0] = True  # half 0 knows template 0, half 1 template 2
    best = make_table(verdicts).best_templates()
    assert (best["P106", 0].index, best["P106", 0].how) == (2, "cross-fit")
    assert (best["P106", 1].index, best["P106", 1].how) == (0, "cross-fit")


def test_a_lone_fact_does_not_choose_its_own_template() -> None:
    fact = FACTS[-1]
    verdicts = np.zeros((1, 3, 5), bool)
    verdicts[0, 2] = True
    best = MasteryTable.build([fact], pack_verdicts(verdicts), META).best_templates()
    chosen = best["P106", half(fact.digest())]
    assert (chosen.index, chosen.how, chosen.n_samples) == (0, "first", 0)


class TestHostileFiles:
    def refused(self, path: Path, words: str) -> None:
        with pytest.raises(MasteryError, match=words) as caught:
            MasteryTable.read(path)
        assert str(path.parent) in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.parquet", r"does not exist.*sftknow probe")

    def test_unfinished_probe(self, tmp_path: Path) -> None:
        (tmp_path / "probe.json").write_text("{}")
        with pytest.raises(MasteryError, match=r"not finished.*again"):
            MasteryTable.read(tmp_path)

    def test_not_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "mastery.parquet"
        path.write_text("a,b\n1,2\n")
        self.refused(path, "not readable as a mastery table")

    def test_truncated(self, tmp_path: Path, verdicts: np.ndarray) -> None:
        path = tmp_path / "mastery.parquet"
        make_table(verdicts).write(path)
        path.write_bytes(path.read_bytes()[:-100])
        self.refused(path, "not readable as a mastery table")

    def test_another_parquet_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mastery.parquet"
        pq.write_table(pa.table({"a": [1]}), path)
        self.refused(path, "not a mastery table")

    def test_another_format_version(self, tmp_path: Path, verdicts: np.ndarray) -> None:
        path = tmp_path / "mastery.parquet"
        self.rewrite(verdicts, path, format="sftknow-mastery/9")
        self.refused(path, r"sftknow-mastery/9.*sftknow-mastery/1")

    def test_malformed_record(self, tmp_path: Path, verdicts: np.ndarray) -> None:
        path = tmp_path / "mastery.parquet"
        self.rewrite(verdicts, path, colour="blue")
        self.refused(path, "colour")

    def test_other_columns(self, tmp_path: Path, verdicts: np.ndarray) -> None:
        path = tmp_path / "mastery.parquet"
        pq.write_table(make_table(verdicts).rows.drop_columns(["stratum"]), path)
        self.refused(path, "columns")

    def test_counts_that_do_not_follow(self, tmp_path: Path, verdicts: np.ndarray) -> None:
        path = tmp_path / "mastery.parquet"
        rows = make_table(verdicts).rows
        strata = pa.array(np.full(len(FACTS), 4, np.int8))
        rows = rows.set_column(8, rows.schema.field("stratum"), strata)
        pq.write_table(rows.cast(make_table(verdicts).rows.schema), path)
        self.refused(path, "do not follow")

    def rewrite(self, verdicts: np.ndarray, path: Path, **changed: str) -> None:
        rows = make_table(verdicts).rows
        record = json.loads(rows.schema.metadata[b"sftknow"]) | changed
        pq.write_table(rows.replace_schema_metadata({b"sftknow": json.dumps(record)}), path)
