from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("benchmarks_on_path")


def _record(table, method, accuracies, **more):
    n = len(accuracies)
    metrics = ("balanced accuracy", "average precision", "Brier score", "log loss")
    return {
        "table": table,
        "method": method,
        "scores": {"Judge": {metric: list(accuracies) for metric in metrics}},
        "seconds": [2.0] * n,
        "n_synthetic": [10] * n,
        "n_repeated": [0] * n,
        "fallback": [None] * n,
        "distance": [1.0] * n,
        "distance_real": [3.0] * n,
        "cpu": "a processor",
        "threads": 1,
        "torch": "2",
        "date": "2026-01-01",
    } | more


def _fold(n_of_each=(12, 5), n_columns=3, categorical=()):
    from tables import Fold

    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(len(n_of_each)), n_of_each)
    X = rng.normal(size=(len(y), n_columns)) + y[:, None]
    X[:, list(categorical)] = rng.integers(0, 2, size=(len(y), len(categorical)))
    mask = np.isin(np.arange(n_columns), categorical)
    return Fold(X, y, mask, seed=3, scored=(X[::-1], y[::-1]))


def test_ranks_average_ties_and_then_tables():
    from tables_report import mean_ranks

    # 1, 2.5, 2.5 on the first table; 3, 2, 1 on the second.
    means = np.array([[0.9, 0.7, 0.7], [0.1, 0.2, 0.3]])
    np.testing.assert_allclose(mean_ranks(means), [2.0, 2.25, 1.75])


def test_the_f_test_is_alpaydin_s():
    from tables_report import f_test

    # F = 25 / (2 * 2.5) = 5 and 27.05 / (2 * 3.025) = 4.47: either side of the 5 % point of
    # F(10, 5), which is 4.735.
    assert f_test(np.array([1, 2] * 5)) < 0.05 < f_test(np.array([1, 2.1] * 5))
    assert f_test(np.ones(10)) == f_test(np.zeros(10)) == f_test(np.array([1, 2])) == 1


def test_wins_losses_and_clear_ones_are_counted_the_metric_s_way_round():
    from tables_report import OURS, SMOTE_ROW, versus

    differences = {"clear": [0.1, 0.2] * 5, "unclear": [0.1, 0.3] * 5, "level": [0.1, -0.1] * 5}
    book = {}
    for table, difference in differences.items():
        book[table, SMOTE_ROW] = _record(table, SMOTE_ROW, [0.5] * 10)
        book[table, OURS] = _record(table, OURS, 0.5 + np.array(difference))
    book["ours alone", OURS] = _record("ours alone", OURS, [0.9] * 10)
    found = versus(book, OURS, SMOTE_ROW, "Judge", "balanced accuracy")
    assert list(found.values()) == [3, 2, 1, 0, 0]
    found = versus(book, OURS, SMOTE_ROW, "Judge", "log loss")
    assert list(found.values()) == [3, 0, 0, 2, 1]


def test_the_report_ranks_by_choice_of_tables_and_tells_of_failures_and_top_ups():
    from tables_report import OURS, SMOTE_ROW, UNWEIGHTED, write_report

    why = "ValueError: no neighbours"
    records = [
        _record("a", "nothing", [0.5, 0.7], n_synthetic=[0, 0], distance=[None, None]),
        _record("a", SMOTE_ROW, [0.8, 0.8], fallback=[None, why], distance=[0.5, None]),
        _record("a", OURS, [0.7, 0.9], n_repeated=[0, 3]),
        _record("a", UNWEIGHTED, [0.8, 0.8]),
        _record("b", "nothing", [0.1, 0.1]),
        _record("b", "not asked for", [0.1, 0.1]),
    ]
    lines = write_report(
        records, ["nothing", SMOTE_ROW, OURS, UNWEIGHTED, "not yet done"]
    ).splitlines()
    ranks = lines[lines.index("## Ranks over 2 tables") :]
    assert ranks[6] == "| nothing | 35.0 | 1.00 | 35.0 | 1.00 | 0.3500 | 0.3500 |"
    assert not ranks[7]
    ranks = lines[lines.index("## Ranks over 1 tables: a") + 2 :]
    assert ranks[4] == "| nothing | 60.0 | 3.00 | 60.0 | 3.00 | 0.6000 | 0.6000 |"
    assert ranks[6] == f"| {OURS} | 80.0 | 1.50 | 80.0 | 1.50 | 0.8000 | 0.8000 |"
    assert ranks[7] == f"| {UNWEIGHTED} | 80.0 |  | 80.0 |  | 0.8000 | 0.8000 |"
    failures = next(line for line in lines if "failed in" in line)
    assert failures.startswith(f"- {SMOTE_ROW} failed in 1 of 2 folds")
    assert failures.endswith(f"(a): 1 times `{why}`.")
    assert any(line.startswith(f"- {OURS}: 3 of 20 rows are repeated") for line in lines)
    assert f"| {OURS} | 2.00 | 1 | 2.00 | 2.00 | a |" in lines
    assert "| real rows, to others | 6.00 | 1 |  |  |  |" in lines
    per_table = lines[lines.index("### Judge: balanced accuracy") :]
    assert per_table[4:6] == [
        "| a | 60.0 | **80.0** | **80.0** | **80.0** |",
        "| b | **10.0** |  |  |  |",
    ]


def test_a_method_without_a_score_of_a_classifier_is_left_out_of_its_ranks():
    from tables_report import OURS, SMOTE_ROW, write_report

    old = _record("a", "nothing", [0.5, 0.7])
    both = [_record("a", name, [0.8, 0.8]) for name in (SMOTE_ROW, OURS)]
    for record in both:
        record["scores"]["New"] = record["scores"]["Judge"]
    lines = write_report([old, *both], ["nothing", SMOTE_ROW, OURS]).splitlines()
    assert lines[lines.index("### Judge") :][4].startswith("| nothing | 60.0 | 3.00")
    assert lines[lines.index("### New") :][4].startswith(f"| {SMOTE_ROW} | 80.0 | 1.50")
    assert "| a |  | **80.0** | **80.0** |" in lines[lines.index("### New: balanced accuracy") :]


def test_a_report_of_nothing_is_no_error():
    from tables_report import write_report

    assert write_report([], ["nothing"])
    assert write_report([_record("a", "nothing", [0.5])], ["nothing"])


def test_ratios_leave_out_tables_where_smote_only_copies():
    from tables_report import OURS, SMOTE_ROW, distance_ratios

    book = {
        ("a", SMOTE_ROW): {"distance": [0.0, 0.0]},
        ("a", OURS): {"distance": [1.0, 1.0]},
        ("b", SMOTE_ROW): {"distance": [1.0, 3.0]},
        ("b", OURS): {"distance": [None, 3.0]},
    }
    assert distance_ratios(book, OURS) == [1.5]


def test_records_of_folds_become_lists_with_four_digits():
    from tables_report import over_folds

    folds = [{"n": n, "scores": {"a": n / 3}, "reason": None} for n in (1, 200)]
    expected = {"n": [1, 200], "scores": {"a": [0.3333, 66.67]}, "reason": [None, None]}
    assert over_folds(folds) == expected


def test_a_run_goes_on_from_what_is_on_file(tmp_path, monkeypatch, capsys):
    import tables

    done = []

    def measure(table, method, quick):
        done.append((table, method))
        both = (tables.OURS, tables.UNWEIGHTED) if method == tables.OURS else (method,)
        return [_record(table, name, [0.5] * 10) for name in both]

    monkeypatch.setattr(tables, "measure", measure)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    chosen = ["--tables", "pima", "glass2", "--methods", "nothing"]
    tables.main(chosen)
    assert done == [("pima", "nothing"), ("glass2", "nothing")]
    tables.main([*chosen, tables.OURS, tables.UNWEIGHTED])
    assert done[2:] == [("pima", tables.OURS), ("glass2", tables.OURS)]
    lines = (tmp_path / "tables.jsonl").read_text().splitlines()
    # Without the line of one variant, both are made again.
    kept = [line for line in lines if json.loads(line)["method"] != tables.UNWEIGHTED]
    (tmp_path / "tables.jsonl").write_text("\n".join(kept) + "\n")
    tables.main([*chosen, tables.OURS, tables.UNWEIGHTED])
    assert done[4:] == done[2:4]
    tables.main([*chosen, tables.OURS])
    assert len(done) == 6
    tables.main([*chosen, "--anew"])
    assert done[6:] == done[:2]
    assert "Ranks over 2 tables" in (tmp_path / "tables.md").read_text()


def test_of_what_was_repeated_the_last_record_counts(tmp_path):
    from tables_report import read_records

    path = tmp_path / "records.jsonl"
    assert read_records(path) == []
    lines = [_record(table, "m", [score]) for table, score in (("a", 0.1), ("b", 0.2), ("a", 0.3))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [(r["table"], r["scores"]["Judge"]["log loss"]) for r in read_records(path)]
    assert found == [("a", [0.3]), ("b", [0.2])]


def test_the_multiclass_threshold_divides_by_the_training_shares():
    from tables import prior_corrected

    y_train = np.array([0] * 6 + [1] * 3 + [2])
    probabilities = np.array([[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.8, 0.1, 0.11]])
    # Ratios to shares of 0.6, 0.3, 0.1: (1.17, 0.67, 1), (0.83, 1.33, 1), (1.33, 0.33, 1.1).
    np.testing.assert_array_equal(prior_corrected(probabilities[1:], y_train), [0, 1, 0])
    np.testing.assert_array_equal(prior_corrected(probabilities[:1] + [0, 0, 0.01], y_train), [2])


@pytest.mark.parametrize("n_of_each", [(40, 12), (30, 12, 12)])
def test_moving_the_threshold_changes_labels_and_no_probability(n_of_each):
    from tables import evaluate, nothing, threshold

    fold = _fold(n_of_each, n_columns=1)
    plain, moved = (evaluate("LogisticRegression", m(fold), fold) for m in (nothing, threshold))
    accuracies = [scores.pop("balanced accuracy") for scores in (plain, moved)]
    assert accuracies[0] < accuracies[1]
    assert plain == moved


def test_weights_and_class_weights_reach_every_classifier():
    from tables import CLASSIFIERS, Training, class_weight, evaluate, nothing

    fold = _fold((40, 12), n_columns=1)
    weights = np.where(fold.y == 1, 40.0, 0.1)
    for name in CLASSIFIERS:
        weighted = Training(fold.X, fold.y, weights)
        losses = [
            evaluate(name, training, fold)["log loss"]
            for training in (nothing(fold), class_weight(fold), weighted)
        ]
        assert len(set(losses)) == 3, name


@pytest.mark.parametrize("categorical", [(), (0, 1), (0, 1, 2)])
def test_smote_keeps_categories(categorical):
    from tables import METHODS, SMOTE_ROW, resample

    fold = _fold(categorical=categorical)
    training, reason = resample(SMOTE_ROW, fold, {})
    assert reason is None
    np.testing.assert_array_equal(np.bincount(training.y), [12, 12])
    np.testing.assert_array_equal(training.X[:17], fold.X)
    assert np.isin(training.X[:, list(categorical)], (0, 1)).all()
    assert METHODS[SMOTE_ROW](fold).weights is None


def test_a_method_that_fails_leaves_the_rows_as_they_are_and_a_missing_package_is_an_error(
    monkeypatch,
):
    import tables

    def fails(fold):
        raise ValueError("no neighbours\nin two lines")

    def is_missing(fold):
        raise ModuleNotFoundError("it")

    added = {"fails": fails, "missing": is_missing, "idle": tables.nothing}
    monkeypatch.setattr(tables, "METHODS", tables.METHODS | added)
    fold = _fold()
    training, reason = tables.resample("fails", fold, {})
    assert reason == "ValueError: no neighbours"
    assert training.X is fold.X
    assert tables.resample("idle", fold, {})[1] == "made no row"
    assert tables.resample("threshold", fold, {})[1] is None
    with pytest.raises(ModuleNotFoundError):
        tables.resample("missing", fold, {})


def test_rows_that_a_generator_does_not_make_are_repeated_and_counted():
    from tables import MAX_ROUNDS, _top_up

    fold, calls = _fold((12, 5, 9)), []

    def sample(label, n):
        calls.append(label)
        # Of class 1 nothing ever; of class 2 two rows a round.
        return np.full((2 if label == 2 else 0, 3), 7.0)

    training = _top_up(fold, sample)
    assert calls == [1] * MAX_ROUNDS + [2, 2]
    np.testing.assert_array_equal(np.bincount(training.y), [12, 12, 12])
    assert training.n_repeated == 7
    synthetic, labels = training.X[26:], training.y[26:]
    assert (synthetic[labels == 2] == 7).all()
    assert {*map(tuple, synthetic[labels == 1])} <= {*map(tuple, fold.X[fold.y == 1])}


def test_distances_are_to_the_closest_other_row_in_standard_deviations():
    from tables import Fold, Training, closest_distances

    # The second column is constant. Rows 4 and 9 are of the rare class, 3 and 5 from others.
    X = np.array([[0.0, 1], [0, 1], [1, 1], [1, 1], [4, 1], [9, 1]])
    fold = Fold(X, np.array([0, 0, 0, 0, 1, 1]), np.zeros(2, bool))
    synthetic = np.array([[3.0, 1], [7, 1], [12, 1]])
    training = Training(np.concatenate([X, synthetic]), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]))
    found = closest_distances(training, fold)
    spread = X[:, 0].std()
    assert found["distance"] == pytest.approx(2 / spread)
    assert found["distance_real"] == pytest.approx(4 / spread)
    assert closest_distances(Training(X, fold.y), fold)["distance"] is None


def test_global_random_states_are_put_back():
    from tables import seeded

    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    drawn = []

    def draw_and_fail():
        with seeded(7):
            drawn.append((np.random.random(), torch.rand(1)))
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        draw_and_fail()
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    with seeded(7):
        assert (np.random.random(), torch.rand(1)) == drawn[0]


def test_the_audit_counts_tables_that_both_sides_have():
    from audit import write_report

    def record(table, method, er_split, info_gain, **more):
        numbers = {"er_split": er_split, "er_naive": 0.1, "info_gain": info_gain}
        about = {"cpu": "a processor", "threads": 1, "torch": "2", "package": "it 1"}
        return {"table": table, "method": method, "delta_brier": 0.0} | numbers | about | more

    records = [
        record("a", "SMOTE", 0.3, 0.1),
        record("a", "DiffusionBalancer", 0.2, 0.0),
        record("b", "SMOTE", 0.3, 0.1),
        record("b", "DiffusionBalancer", 0.3, 0.2),
        record("c", "SMOTE", 0.9, 0.1),
        record("d", "SMOTE", 0.9, 0.1),
        record("d", "DiffusionBalancer", 0.0, 0.9, failed="no rows"),
    ]
    text = write_report(records)
    assert "ER_split is lower than SMOTE's on 1 of 2 tables (1 equal)" in text
    assert "information gain higher on 1 of 2 tables," in text
    assert "| a | 0.300 | 0.200 | 0.100 | 0.100 | 0.100 | 0.000 | 0.000 | 0.000 |" in text
    assert "DiffusionBalancer failed on d: no rows." in text


def test_the_exponent_of_growth_is_found():
    from table_time import slope

    assert slope([10, 100, 1000], [3 * n**1.5 for n in (10, 100, 1000)]) == pytest.approx(1.5)


def test_choices_for_tables_make_only_the_ways_that_are_missing(tmp_path, monkeypatch):
    import table_choices

    asked = []

    def measure(table, ways):
        asked.append((table, ways))
        return [{"table": table, "method": way} for way in ways]

    monkeypatch.setattr(table_choices, "RESULTS", tmp_path)
    monkeypatch.setattr(table_choices, "measure", measure)
    monkeypatch.setattr(table_choices, "write_report", lambda records: f"{len(records)} records")
    first, *others = ways = list(table_choices.WAYS)
    line = json.dumps({"table": "glass0", "method": first})
    (tmp_path / "table_choices.jsonl").write_text(line + "\n")
    for _ in range(2):
        table_choices.main(["--tables", "glass0", "crx"])
    assert asked == [("glass0", others), ("crx", ways)]
    assert f"{2 * len(ways)} records" in (tmp_path / "table_choices.md").read_text()


def test_a_case_that_takes_too_long_is_killed():
    from table_time import run_case

    assert run_case("describe", {}, threads=1, limit=0.05) is None


def test_the_table_of_the_time_benchmark_is_as_imbalanced_as_it_says(tmp_path):
    from table_time import make_table

    found = make_table({"n_rows": 2100, "seed": 0, "path": tmp_path / "table.npz"})
    assert found["bytes"] == 2100 * 30 * 8
    assert found["counts"] == pytest.approx([2000, 100], abs=2)


def test_the_time_report_says_which_rival_was_killed():
    from table_time import markdown

    def run(seconds, n_rows):
        return {"seconds": seconds, "growth_bytes": 2 * n_rows * 2**20, "table_bytes": 2**20}

    report = {
        "command": "python it.py",
        "machine": {"cpu": "a processor", "torch": "2", "date": "2026-01-01", "versions": {}},
        "threads": 1,
        "seed": 0,
        "limit": 60.0,
        "compared": 100,
        "ours": {"10": [run(1.0, 10)], "100": [run(n, 100) for n in (9.0, 10.0, 30.0)]},
        "rivals": {"CTGAN": run(25.0, 100), "ForestDiffusion": None, "third": {"failed": "so"}},
    }
    lines = markdown(json.loads(json.dumps(report))).splitlines()
    assert "| DiffusionBalancer | 9.00 10.0 30.0 | 1 |" in lines
    assert "| CTGAN | 25.0 | 2.50 |" in lines
    assert "| ForestDiffusion | more than 60.0 | more than 6.00 |" in lines
    assert "| third | failed: so |  |" in lines
    assert "| 100 | 10.0 | 200 | 200 |" in lines
    assert any("to the power of 1.00 " in line for line in lines)
