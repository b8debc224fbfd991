"""Codecs: every container that may come in, encoded as told and decoded to what it was."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse

from sklearn_diffult.codecs import ImageCodec, TableCodec, make_codec

DTYPES = ["uint8", "bool", "int64", "float32", "float64"]
# Shape of X and of an encoded row; odd sides, every number of channels.
LAYOUTS = {
    "NHW": ((5, 9, 11), (1, 9, 11)),
    "NHWC, 1 channel": ((5, 9, 8, 1), (1, 9, 8)),
    "NHWC, 3 channels": ((5, 8, 13, 3), (3, 8, 13)),
    "NHWC, 4 channels": ((5, 8, 9, 4), (4, 8, 9)),
    "NCHW, 1 channel": ((5, 1, 9, 8), (1, 9, 8)),
    "NCHW, 3 channels": ((5, 3, 8, 13), (3, 8, 13)),
    "NCHW, 4 channels": ((5, 4, 9, 9), (4, 9, 9)),
}
FLAT_SHAPES = {
    (8, 12): (1, 8, 12),
    (8, 12, 1): (1, 8, 12),
    (8, 9, 3): (3, 8, 9),
    (4, 8, 9): (4, 8, 9),
}


def pixels(shape, dtype):
    values = np.random.RandomState(0).randint(0, 256, shape)
    if dtype == "bool":
        return values > 127
    return values.astype(dtype) / 255 if dtype.startswith("float") else values.astype(dtype)


def round_trip(X, image_shape=None):
    """Fitted codec, encoded rows, decoded rows."""
    codec = make_codec(X, image_shape).fit(X)
    encoded = codec.encode(X)
    assert encoded.dtype == torch.float32
    assert tuple(encoded.shape[1:]) == codec.sample_shape
    return codec, encoded, codec.decode(encoded)


def assert_same_values(decoded, X):
    """Whole numbers are equal, floats to float32's precision over the range of X."""
    assert type(decoded) is type(X)
    assert decoded.dtype == X.dtype
    assert decoded.shape == X.shape
    if X.dtype.kind == "f":
        np.testing.assert_allclose(decoded, X, rtol=0, atol=1e-6 * np.ptp(X))
    else:
        np.testing.assert_array_equal(decoded, X)


# Images -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_of_every_layout_and_dtype_come_back_as_they_were(layout, dtype):
    shape, sample_shape = LAYOUTS[layout]
    X = pixels(shape, dtype)
    codec, encoded, decoded = round_trip(X)
    assert codec.is_image
    assert codec.sample_shape == sample_shape
    assert -1 <= encoded.min() <= encoded.max() <= 1
    assert_same_values(decoded, X)


def test_flat_images_may_lie_in_columns_of_objects():
    flat = pd.DataFrame(np.arange(128).reshape(2, 64))
    mixed = flat.astype({3: object, 4: "Int64", 5: "Float64"})
    codec = ImageCodec((8, 8)).fit(mixed)
    assert torch.equal(codec.encode(mixed), ImageCodec((8, 8)).fit(flat).encode(flat))


def test_channels_first_and_channels_last_encode_to_the_same_tensor():
    X = pixels((5, 8, 13, 3), "uint8")
    last, first = round_trip(X)[1], round_trip(np.moveaxis(X, -1, 1))[1]
    assert torch.equal(last, first)
    assert last[2, 1, 3, 4].item() == pytest.approx(X[2, 3, 4, 1] / 127.5 - 1)


def test_few_grey_levels_in_bytes_span_the_whole_encoded_range():
    X = np.zeros((2, 8, 8), dtype=np.uint8)
    X[1, :4], X[1, 4:] = 4, 16
    codec, encoded, _ = round_trip(X)
    assert encoded.unique().tolist() == pytest.approx([-1, -0.5, 1])
    assert codec.decode(torch.full((1, 1, 8, 8), 3.0)).max() == 16


@pytest.mark.parametrize("scale", [1.0, 1e39, 1e-30])
def test_float_images_span_the_observed_range_even_far_from_zero(scale):
    X = scale * (1e6 + pixels((4, 8, 8), "float64"))
    _, encoded, decoded = round_trip(X)
    assert (encoded.min(), encoded.max()) == (-1, 1)
    assert_same_values(decoded, X)


@pytest.mark.parametrize("value", [0.0, 7.0])
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_constant_images_come_back_constant(value, dtype):
    X = np.full((3, 8, 8), value, dtype=dtype)
    np.testing.assert_array_equal(round_trip(X)[2], X)


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoded_pixels_stay_within_the_span_however_wild_the_tensor(dtype):
    X = pixels((4, 8, 8), dtype)
    codec, encoded, _ = round_trip(X)
    wild = codec.decode(100 * encoded)
    assert (wild.min(), wild.max()) == (codec.low_, codec.high_)
    assert wild.dtype == X.dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_leads_beyond_no_end_of_the_span(dtype):
    random = np.random.RandomState(0)
    for _ in range(100):
        X = random.normal(size=(2, 8, 8)).astype(dtype)
        codec, encoded, _ = round_trip(X)
        ends = codec.decode(torch.ones_like(encoded)), codec.decode(-torch.ones_like(encoded))
        assert (X.min() <= ends[1]).all()
        assert (ends[0] <= X.max()).all()


@pytest.mark.parametrize("value", [0, 7, 255])
def test_images_of_one_grey_level_decode_to_a_neighbour_at_most(value):
    codec, encoded, decoded = round_trip(np.full((2, 8, 8), value, np.uint8))
    assert (decoded == value).all()
    assert abs(codec.decode(-encoded).astype(int) - value).max() == 1


@pytest.mark.parametrize("image_shape", FLAT_SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_flat_rows_with_an_image_shape_are_images_and_come_back_flat(dtype, image_shape):
    X = pixels((5, int(np.prod(image_shape))), dtype)
    codec, encoded, decoded = round_trip(X, image_shape)
    assert codec.is_image
    assert codec.sample_shape == FLAT_SHAPES[image_shape]
    assert torch.equal(encoded, round_trip(X.reshape(5, *image_shape))[1])
    assert_same_values(decoded, X)


def test_a_flat_data_frame_keeps_columns_and_dtypes():
    X = pd.DataFrame(pixels((5, 64), "uint8")).add_prefix("pixel")
    _, _, decoded = round_trip(X, (8, 8))
    pd.testing.assert_frame_equal(decoded, X)


def test_flat_lists_of_integers_come_back_as_lists_of_integers():
    X = pixels((5, 64), "int64").tolist()
    decoded = round_trip(X, [8, 8])[2]
    assert decoded == X
    assert type(decoded[0][0]) is int


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_lists_of_pillow_images_keep_mode_and_size_and_every_bit(mode, channels):
    shape = (4, 9, 12) if channels == 1 else (4, 9, 12, channels)
    X = [Image.fromarray(image) for image in pixels(shape, "uint8")]
    assert X[0].mode == mode
    codec, _, decoded = round_trip(X)
    assert codec.sample_shape == (channels, 9, 12)
    assert isinstance(decoded, list)
    assert [image.mode for image in decoded] == [mode] * 4
    assert [image.tobytes() for image in decoded] == [image.tobytes() for image in X]


def test_images_of_another_shape_than_fit_saw_are_refused():
    codec = make_codec(np.zeros((2, 8, 8))).fit(np.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match=r"\(8, 9\), but fit saw \(8, 8\); bring"):
        codec.encode(np.zeros((2, 8, 9)))


# Tables -------------------------------------------------------------------------------


def numbers(kind, n_rows=40):
    random_state = np.random.RandomState(0)
    if kind == "bool":
        return random_state.rand(n_rows, 4) > 0.5
    if kind.startswith("int"):
        return random_state.randint(-50, 50, (n_rows, 4)).astype(kind)
    values = random_state.standard_t(3, (n_rows, 4)) * [1, 10, 0.1, 1e3] + [0, 5, -3, 1e4]
    return values.astype(kind)


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "int8", "bool"])
def test_numeric_arrays_come_back_in_their_dtype(kind):
    X = numbers(kind)
    codec, encoded, decoded = round_trip(X)
    assert not codec.is_image
    assert encoded.shape == X.shape
    assert_same_values(decoded, X)


def mixed_frame():
    random_state = np.random.RandomState(0)
    return pd.DataFrame(
        {
            "float64": random_state.randn(30),
            "float32": random_state.randn(30).astype(np.float32),
            "int": random_state.randint(-5, 5, 30),
            "uint8": random_state.randint(0, 255, 30).astype(np.uint8),
            "bool": random_state.rand(30) > 0.5,
            "Int64": pd.array(random_state.randint(0, 9, 30), dtype="Int64"),
            "boolean": pd.array(random_state.rand(30) > 0.5, dtype="boolean"),
            "Float64": pd.array(random_state.randn(30), dtype="Float64"),
            "sparse": pd.arrays.SparseArray(random_state.randint(0, 2, 30), fill_value=0),
        },
        index=np.arange(30) * 2,
    )


def test_a_data_frame_of_mixed_dtypes_keeps_columns_and_dtypes():
    X = mixed_frame()
    _, _, decoded = round_trip(X)
    pd.testing.assert_frame_equal(decoded, X.reset_index(drop=True), rtol=0, atol=1e-6)


def test_columns_of_one_name_keep_a_dtype_each():
    X = pd.concat([pd.Series([1, 2], name="a"), pd.Series([0.5, 0.25], name="a")], axis=1)
    pd.testing.assert_frame_equal(round_trip(X)[2], X)


def test_a_frame_with_two_levels_of_columns_keeps_them():
    columns = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1), ("b", 2)], names=["x", "y"])
    X = pd.DataFrame(numbers("int64"), columns=columns)
    pd.testing.assert_frame_equal(round_trip(X)[2], X)


def test_an_all_integer_data_frame_of_nullable_columns_comes_back_whole():
    X = pd.DataFrame({"a": [1, 2, 5], "b": [0, 4, 2]}, dtype="Int32")
    pd.testing.assert_frame_equal(round_trip(X)[2], X)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "coo_matrix", "csr_array"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_sparse_tables_keep_format_and_dtype(kind, dtype):
    dense = np.random.RandomState(0).randint(0, 3, (20, 5)).astype(dtype)
    X = getattr(sparse, kind)(dense)
    codec, _, decoded = round_trip(X)
    assert type(decoded) is type(X)
    assert_same_values(decoded.toarray(), dense)
    both = codec.append(X, codec.encode(X))
    assert type(both) is type(X)
    np.testing.assert_array_equal(both.toarray()[:20], dense)


@pytest.mark.parametrize(
    "X", [[[1, 5], [2, 3]], [[True, False], [False, False]], [[0.5, 2.0], [1.5, 1.0]]]
)
def test_lists_of_lists_come_back_as_lists_of_the_same_python_type(X):
    decoded = round_trip(X)[2]
    np.testing.assert_allclose(decoded, X, rtol=1e-6)
    assert type(decoded[0][0]) is type(X[0][0])


@pytest.mark.parametrize("kind", ["int64", "int8", "bool"])
def test_any_tensor_decodes_to_whole_numbers_within_the_observed_range(kind):
    X = numbers(kind)
    codec = make_codec(X).fit(X)
    decoded = codec.decode(10 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
    assert decoded.dtype == X.dtype
    assert (decoded >= X.min(axis=0)).all()
    assert (decoded <= X.max(axis=0)).all()


def test_integers_are_rounded_to_the_nearest():
    X = np.array([[0], [10]])
    codec = make_codec(X).fit(X)
    # The two lie at the quartiles of a standard normal.
    scores = 0.6745 * torch.tensor([[0.48], [0.52], [-0.48]])
    assert codec.decode(scores).ravel().tolist() == [7, 8, 3]


def test_a_table_with_another_number_of_columns_than_fit_saw_is_refused():
    codec = make_codec(np.eye(3)).fit(np.eye(3))
    with pytest.raises(ValueError, match="X has 2 columns, but fit saw 3"):
        codec.encode(np.zeros((4, 2)))


# All containers -----------------------------------------------------------------------

CONTAINERS = {
    "uint8 images": lambda: pixels((6, 8, 9, 3), "uint8"),
    "float images": lambda: pixels((6, 8, 9), "float64"),
    "pillow images": lambda: [Image.fromarray(image) for image in pixels((6, 8, 8), "uint8")],
    "float table": lambda: numbers("float64"),
    "float32 table": lambda: numbers("float32"),
    "bool table": lambda: numbers("bool"),
    "data frame": mixed_frame,
    "list of lists": lambda: numbers("float64").tolist(),
}


def same_bits(one, other):
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(
            one.reset_index(drop=True), other.reset_index(drop=True), check_exact=True
        )
    elif isinstance(one, list):
        assert one == other
    else:
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("container", CONTAINERS)
def test_appending_leaves_the_first_rows_bit_identical_and_x_untouched(container):
    X, untouched = CONTAINERS[container](), CONTAINERS[container]()
    codec = make_codec(X).fit(X)
    encoded = codec.encode(X)[:3]
    both = codec.append(X, encoded)
    assert type(both) is type(X)
    assert len(both) == len(X) + 3
    same_bits(both[: len(X)], untouched)
    same_bits(X, untouched)
    same_bits(both[len(X) :], codec.decode(encoded))


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_rows_decode_to_an_empty_container_of_the_kind(container):
    X = CONTAINERS[container]()
    codec = make_codec(X).fit(X)
    none = torch.empty(0, *codec.sample_shape)
    empty = codec.decode(none)
    assert type(empty) is type(X)
    assert len(empty) == 0
    same_bits(codec.append(X, none), CONTAINERS[container]())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_image_codecs_survive_as_json(layout):
    X = pixels(LAYOUTS[layout][0], "float64")
    codec = make_codec(X).fit(X)
    state, arrays = codec.to_state()
    other = ImageCodec.from_state(json.loads(json.dumps(state)), arrays)
    assert vars(other) == vars(codec)


def test_codecs_of_flat_and_of_pillow_images_survive_as_json():
    flat = pd.DataFrame(pixels((5, 64), "uint8")).add_prefix("pixel")
    pillow = [Image.fromarray(image) for image in pixels((5, 8, 9, 3), "uint8")]
    for X, shape in ((flat, (8, 8)), (pillow, None)):
        codec = make_codec(X, shape).fit(X)
        state, arrays = codec.to_state()
        other = ImageCodec.from_state(json.loads(json.dumps(state)), arrays)
        one, again = codec.decode(codec.encode(X)), other.decode(other.encode(X))
        assert type(one) is type(again)
        assert np.array_equal(np.asarray(one), np.asarray(again))
    assert again[0].mode == "RGB"


def test_fitting_keeps_no_rows():
    X = mixed_frame()
    assert len(make_codec(X).fit(X).template_) == 0


@pytest.mark.parametrize(
    ("X", "image_shape", "codec"),
    [
        (np.zeros((2, 9)), None, TableCodec),
        (np.zeros((2, 64)), (8, 8), ImageCodec),
        (np.zeros((2, 8, 8)), None, ImageCodec),
        ([[1, 2], [3, 4]], None, TableCodec),
        ([Image.new("L", (8, 8))], None, ImageCodec),
        (sparse.eye_array(3, format="csr"), None, TableCodec),
    ],
)
def test_the_codec_is_chosen_by_what_x_holds(X, image_shape, codec):
    assert type(make_codec(X, image_shape)) is codec


def test_whole_pixels_stay_whole_whatever_their_dtype():
    X = np.random.RandomState(0).randint(17, size=(4, 8, 8)).astype(float)
    codec, encoded, _ = round_trip(X)
    decoded = codec.decode(0.9 * encoded)
    assert decoded.dtype == float
    np.testing.assert_array_equal(decoded, np.rint(decoded))
    fractions = round_trip(X + 0.5)[0].decode(0.9 * encoded)
    assert (fractions % 1 != 0.5).any()
