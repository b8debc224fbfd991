from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

pytestmark = pytest.mark.usefixtures("benchmarks_on_path")


def _repetition(ours, theirs):
    return {
        side: {
            case: {"images_per_second": speed, "peak_bytes": 1, "growth_bytes": 1}
            for case, speed in (("train", speeds[0]), ("generate", speeds[1]))
        }
        for side, speeds in (("ours", ours), ("theirs", theirs))
    } | {"peak_flops_per_second": 1000.0}


def test_the_median_ratio_is_the_median_of_ratios_taken_within_a_repetition():
    from throughput import compare

    # The machine slows down by ten in the last repetition: ratios do not notice.
    records = [
        _repetition((200, 1), (100, 1)),
        _repetition((30, 1), (10, 1)),
        _repetition((10, 1), (10, 1)),
    ]
    result = compare(records, "train", "images_per_second")
    assert result["ratios"] == [2.0, 3.0, 1.0]
    assert result["median_ratio"] == 2.0
    assert (result["median_ours"], result["median_theirs"]) == (30, 10)


def test_share_of_peak_is_speed_times_flops_over_the_measured_peak():
    from throughput import flop_share

    size = {"training": 30.0, "forward": 10.0}
    record = _repetition((10, 2), (5, 0.01))
    shares = flop_share(record, {"ours": size, "theirs": size}, {"ours": 18, "theirs": 1000})
    assert shares["ours"] == {"train": 0.3, "generate": 0.36}
    assert shares["theirs"] == pytest.approx({"train": 0.15, "generate": 0.1})


@pytest.mark.parametrize(
    ("bounds", "ratio", "met"),
    [
        ({"at_least": 1.5}, 1.5, True),
        ({"at_least": 1.5}, 1.49, False),
        ({"at_most": 1}, 1, True),
        ({"at_most": 1}, 1.01, False),
    ],
)
def test_a_target_is_met_up_to_and_including_its_bound(bounds, ratio, met):
    from throughput import Target

    assert Target("speed", **bounds).met(ratio) is met


def test_what_makes_the_other_side_fastest_is_chosen():
    from throughput import fastest

    slow, fast = ({"images_per_second": speed} for speed in (1, 2))
    assert fastest([slow, fast, slow]) is fast


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (9.876, "9.88"), (123.4, "123"), (1234567, "1,234,567")],
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    from throughput import number

    assert number(value) == text


def test_flops_of_a_convolution_are_counted_forward_and_backward():
    from counting import count_flops

    network = nn.Conv2d(3, 5, 3, padding=1)
    images = torch.zeros(2, 3, 8, 8)
    size = count_flops(network, lambda: network(images), len(images))
    assert size.n_parameters == 3 * 5 * 9 + 5
    assert size.forward == 2 * 3 * 5 * 9 * 8 * 8
    # The images need no gradient, so the backward pass costs as much as the forward pass.
    assert size.training == 2 * size.forward


def test_attention_is_counted_as_its_two_products():
    from counting import count_flops

    weight = nn.Parameter(torch.zeros(1))
    network = nn.ParameterList([weight])
    query = torch.zeros(1, 1, 6, 4)
    attend = nn.functional.scaled_dot_product_attention
    size = count_flops(network, lambda: attend(query * weight, query, query), 1)
    assert size.forward == 2 * (2 * 6 * 6 * 4)


def test_our_side_trains_generates_and_survives_a_file(tmp_path):
    from ours import Ours

    images = np.random.default_rng(0).random((12, 8, 8), dtype=np.float32)
    settings = {"batch_size": 4, "precision": "float32", "seed": 0}
    ours = Ours(images, np.arange(12) % 3, settings)
    n_images, seconds = ours.train(n_steps=2)
    assert n_images == 8
    assert seconds > 0
    ours.save(tmp_path / "ours.model")
    rows = ours.sample(n_per_class=2, seed=0)
    assert rows.shape == (6, 8, 8)
    again = Ours(images, np.arange(12) % 3, settings)
    again.load(tmp_path / "ours.model")
    np.testing.assert_array_equal(again.sample(n_per_class=2, seed=0), rows)


def test_the_report_says_what_was_not_met():
    from throughput import TARGETS, compare, dataset_markdown

    record = _repetition((10, 100), (10, 1))
    record["share_of_peak"] = {
        side: {"train": 0.25, "generate": 0.5} for side in ("ours", "theirs")
    }
    size = {"n_parameters": 10, "training": 3e6, "forward": 1e6}
    drawn = {"frechet_distances": [2.0], "seconds_per_draw": [1.0], "n_images": 5, "seconds": 3.0}
    text = dataset_markdown(
        "digits",
        {
            "networks": {"ours": size, "theirs": {"flops": size, "dim": 8, "dim_mults": [1, 2]}},
            "comparisons": [
                {"case": case, "quantity": quantity, **compare([record], case, quantity)}
                for case, quantity in TARGETS
            ],
            "repetitions": [record],
            "quality": {
                "ours": drawn,
                "theirs": drawn,
                "real": {"frechet_distances": [1.0]},
                "ratio": 1.2,
                "full_sampling_ratio": 50.0,
            },
        },
    )
    lines = text.splitlines()
    assert next(line for line in lines if "training, images/s" in line).endswith("| **no** |")
    assert next(line for line in lines if "generation, images/s" in line).endswith("| yes |")
    assert "target <= 1: **not met**" in text


def _record(method, seed, recalls):
    return {
        "method": method,
        "seed": seed,
        "recalls": recalls,
        "n_rows": [200, 50, 5],
        "n_steps": 10,
        "seconds_before": 60.0,
        "cpu": "a processor",
        "threads": 2,
        "torch": "2",
    }


def test_shot_groups_of_a_record_follow_its_training_counts():
    from report import shot_accuracies

    scores = shot_accuracies(_record("any", 0, [0.9, 0.6, 0.3]), (100, 20))
    assert scores == pytest.approx({"all": 60, "many": 90, "medium": 60, "few": 30})


def test_differences_are_paired_by_seed_and_skip_what_one_side_lacks():
    from report import by_method, interval, paired_difference

    records = [_record("a", seed, [share] * 3) for seed, share in ((0, 0.5), (1, 0.7), (2, 0.1))]
    records += [_record("b", seed, [share] * 3) for seed, share in ((1, 0.6), (0, 0.42))]
    table = by_method(records, (100, 20))
    differences = paired_difference(table["a"], table["b"])
    np.testing.assert_allclose(differences, [8, 10])
    # Two differences 9 -+ 1: standard error 1, and Student's t at 1 degree of freedom is 12.706.
    assert interval(differences) == pytest.approx(12.706, abs=1e-3)


def test_the_report_names_the_best_baseline_and_the_share_of_the_gap():
    from report import write_report

    records = [
        _record(method, seed, [share + seed / 100] * 3)
        for method, share in (("weak", 0.5), ("strong", 0.6), ("ours", 0.65), ("oracle", 0.8))
        for seed in (0, 1)
    ]
    text = write_report(records, (100, 20), ["weak", "strong", "ours", "oracle"], "ours", "oracle")
    assert "Best baseline: strong, 60.5; ours +5.0." in text
    assert "gap of 20.0 points closed: 25 %" in text
    assert "| strong | 2 | 60.5 ± 0.7 |" in text


def test_the_report_leaves_out_seeds_that_a_method_lacks():
    from report import write_report

    records = [_record("ours", 0, [0.6] * 3), _record("weak", 0, [0.5] * 3)]
    further = _record("weak", 1, [0.1] * 3)
    arguments = ((100, 20), ["weak", "strong", "ours"], "ours", "oracle")
    assert write_report([*records, further], *arguments) == write_report(records, *arguments)
    assert write_report([], *arguments)


def test_of_a_fit_that_was_repeated_the_last_record_counts(tmp_path):
    from report import read_records

    path = tmp_path / "records.jsonl"
    assert read_records(path) == []
    lines = [_record("a", 0, [0.1] * 3), _record("b", 0, [0.2] * 3), _record("a", 0, [0.3] * 3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(r["method"], r["recalls"][0]) for r in read_records(path)] == [("a", 0.3), ("b", 0.2)]


def test_the_ablation_s_table_pairs_each_variant_with_the_base():
    from ablation import write_report

    def record(method, seed, share, distances):
        return _record(method, seed, [share] * 3) | {
            "group": "weights",
            "n_synthetic": [0, 10, 20],
            "frechet_distances": distances,
            "inception_score": None,
        }

    records = [
        record("base", 0, 0.5, {"1": 2.0, "2": 4.0}),
        record("base", 1, 0.9, {"1": 2.0, "2": 4.0}),
        record("omega 0.3", 1, 0.8, {}),
        record("omega 0.5", 0, 0.6, {}),
        record("omega 0.5", 1, 0.8, {}),
        record("omega 0.7", 0, 0.4, {}),
        record("omega 0.9", 1, 0.7, {}),
    ]
    *lines, blank, note = write_report(records).splitlines()
    assert lines[2].startswith("| **weights** |")
    # Of the seed that most have.
    assert (blank, note) == ("", "All but differences: seed 1.")
    assert lines[3] == "| base | 2 | 90.0 |  | 90.0 | 90.0 | 90.0 | 3.00 |  | 30 |"
    # Against the base of the same seeds.
    assert lines[4] == "| omega 0.3 | 1 | 80.0 | -10.0 | 80.0 | 80.0 | 80.0 |  |  | 30 |"
    assert lines[5] == "| omega 0.5 | 2 | 80.0 | +0.0 | 80.0 | 80.0 | 80.0 |  |  | 30 |"
    assert lines[6] == "| omega 0.7 | 1 |  | -10.0 |  |  |  |  |  |  |"
    assert write_report([]) == "Nothing is on file.\n"
    assert {line.count("|") for line in lines} == {11}


def test_time_to_quality_s_ratios_are_taken_seed_by_seed():
    from time_to_quality import LIBRARIES, markdown

    def side(distance):
        return {
            "frechet_distance": distance,
            "training_seconds": 60.0,
            "training_images": 600,
            "generation_seconds": 40.0,
        }

    runs = [
        {"seed": seed, "sizes": {name: {"n_parameters": 1200} for name in LIBRARIES}}
        | {name: side(distance) for name, distance in zip(LIBRARIES, distances, strict=True)}
        for seed, distances in enumerate([(1.0, 4.0, 2.0), (3.0, 6.0, 3.0)])
    ]
    report = {
        "command": "python it.py",
        "date": "2026-01-01",
        "minutes": 3.0,
        "threads": 2,
        "images": 100,
        "machine": {"cpu": "a processor", "precision": "float32", "versions": {"torch": "2"}},
        "datasets": {"digits": {"budget": 100.0, "runs": runs}},
    }
    text = markdown(report)
    assert "digits, 8x8: 100 s for training and 100 images" in text
    assert text.rstrip().endswith(
        "| diffusers | 1,200 | 60.0 | 600 | 40.0 | 2.50 ± 0.71 | 0.500 1.00 |"
    )


def test_the_profile_counts_operations_by_kind_and_times_layers_as_often_as_they_run():
    from training_profile import KERNELS, OTHER, kind_of, layers_and_inputs, seconds_alone

    assert kind_of("aten::mkldnn_convolution") == "convolutions and matrix products"
    assert kind_of("aten::native_group_norm_backward") == "norms"
    assert kind_of("aten::_fused_adamw_") == "optimiser and parameter average"
    assert kind_of("aten::mul") == OTHER
    kernel = "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816dgrad_optimized_bf16>"
    assert kind_of(kernel, KERNELS) == "convolutions and matrix products"
    shared = nn.Linear(4, 4)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4), shared, shared)
    found = layers_and_inputs(network, lambda: network(torch.randn(5, 1, 4, 4)))
    assert [layer for layer, _ in found] == [network[0], network[2], shared, shared]
    assert [tuple(inputs.shape) for _, inputs in found][:2] == [(5, 1, 4, 4), (5, 8)]
    assert seconds_alone(found, torch.float32) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_table_of_the_profile_shows_shares_of_the_layers_and_of_large_products():
    from training_profile import table

    record = {
        "data": "digits",
        "batch_size": 64,
        "network": {"n_parameters": 1_000, "training": 2e6},
        "precision": "bfloat16",
        "runs": [
            {
                "images_per_second": 50.0,
                "flops_per_second": 1e9,
                "flops_per_second_of_layers_alone": 2e9,
                "peak_flops_per_second": {"a": 4e9, "b": 3e9},
            }
        ],
        "profile": {"norms": 0.25},
        "cpu": "a processor",
        "threads": 1,
        "torch": "2",
        "date": "today",
    }
    text = table(record)
    assert "| 50 | 1 | 2 | 4 | 50% | 25% |" in text
    assert "| norms | 25.0% |" in text
