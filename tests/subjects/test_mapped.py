import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from isaerft.errors import InputError
from isaerft.subjects.cache import TensorWriter, map_tensors

DTYPES = [torch.int64, torch.int32, torch.float32, torch.bfloat16, torch.float16, torch.bool]


def tensor_of(dtype, n, width):
    values = torch.arange(n * max(width, 1)) % 7
    return (values if width == 0 else values.view(n, width)).to(dtype)


def write(folder, parts_of, metadata=None):
    writer = TensorWriter(folder / "parts")
    for name, parts in parts_of.items():
        for part in parts:
            writer.append(name, part)
    writer.join(folder / "file", metadata or {})
    assert not list((folder / "parts").iterdir())
    return folder / "file"


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.integers(0, 3), st.lists(st.integers(0, 4), min_size=1, max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_what_was_appended_is_what_safetensors_and_the_map_read(tmp_path_factory, kinds):
    parts_of = {f"t{i}": [tensor_of(dtype, n, width) for n in sizes] for i, (dtype, width, sizes) in enumerate(kinds)}
    path = write(tmp_path_factory.mktemp("mapped"), parts_of, {"d_sae": "9"})
    mapped, metadata = map_tensors(path)
    assert metadata == {"d_sae": "9"}
    for name, expected in {name: torch.cat(parts) for name, parts in parts_of.items()}.items():
        for read in (load_file(path)[name], mapped[name]):
            assert read.dtype == expected.dtype
            assert torch.equal(read, expected)


def test_the_file_has_the_bytes_that_safetensors_writes(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([True]), "c": torch.arange(3), "d": torch.ones(2)}
    path = write(tmp_path, {name: [value] for name, value in tensors.items()}, {"k": "v"})
    save_file(tensors, tmp_path / "theirs", metadata={"k": "v"})
    assert path.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_rows_of_another_width_or_dtype_are_refused(tmp_path):
    writer = TensorWriter(tmp_path / "parts")
    writer.append("a", torch.zeros(2, 3))
    for other in (torch.zeros(2, 4), torch.zeros(2, 3).double()):
        with pytest.raises(ValueError, match="tensor 'a' has rows of"):
            writer.append("a", other)


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_file_that_is_cut_short_is_an_input_error(tmp_path, kept):
    path = write(tmp_path, {"a": [torch.zeros(100)]}, {"d_sae": "9"})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        map_tensors(path)
