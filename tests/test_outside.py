"""The boundary to outside loaders: one line with the cause and a remedy that fits it, whatever they raise."""

import ast
import json
import zipfile
from pathlib import Path

import pytest

import isaerft
from isaerft.errors import InputError
from isaerft.outside import damage, loading, origin_remedy

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 268435456\n"
PACKAGE = Path(isaerft.__file__).parent
OUTSIDE = {"from_pretrained", "load_from_disk", "load_file", "pipeline", "SentenceTransformer"}


def refused(error, path=None, **said):
    """Return the message for an outside error, and check that it is one line and keeps the original."""
    with pytest.raises(InputError, match=r"^model 'm' cannot be loaded") as caught, loading("model 'm'", path, **said):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def safetensors(n_bytes=8, said=8):
    header = json.dumps({"w": {"dtype": "F32", "shape": [said // 4], "data_offsets": [0, said]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(n_bytes)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", POINTER.encode(), "git-lfs pointer, not the file itself); run `git lfs pull`"),
        ("tokenizer.json", POINTER.encode(), "git-lfs pointer"),
        ("model.safetensors", b"", "is empty"),
        ("model.safetensors", safetensors(3), "is cut: it has 72 of 77 bytes"),
        ("model.safetensors", safetensors()[:30], "is cut"),
        ("model.safetensors", b"<!DOCTYPE html><html>not found</html>", "is not a safetensors file"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"[]", "is not a safetensors file"),
        ("config.json", b'{"model_type": "lla', "is not valid JSON"),
        ("model.gguf", b"<!DOCTYPE html>", "is not a GGUF file"),
        ("pytorch_model.bin", b"PK\x03\x04 and no end", "is cut: it has no end"),
        ("1_Pooling/config.json", b"", "is empty"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong_with_it(tmp_path, name, content, said):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    for path in (tmp_path, file):
        message = refused(Exception("header too large"), path, allowed="a model", remedy="check the network")
        assert f"({file} is" in message
        assert said in message
        assert "network" not in message
        assert "header" not in message


def test_whole_files_are_not_blamed(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("")
    (tmp_path / ".gitattributes.json").write_text("")
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("data.pkl", b"")
    assert damage(tmp_path) is None
    assert damage(tmp_path / "no such file") is None
    assert refused(Exception("odd"), tmp_path, allowed="x", remedy="check y").endswith("(odd); allowed: x; check y")


def named(name, message="", base=Exception):
    return type(name, (base,), {})(message)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (named("GatedRepoError", "401"), "accept its license"),
        (named("RevisionNotFoundError"), "check the revision"),
        (OSError("m is not a local folder and is not a valid model identifier"), "check the id, or the path"),
        (Exception("data did not match any variant of untagged enum MergeType at line 1"), "save the tokenizer again"),
        (
            ValueError("contains custom code; pass trust_remote_code=True"),
            "no code of a model's",
        ),
        (ValueError("model type `x` but Transformers does not recognize this architecture"), "newer transformers"),
        (named("OutOfMemoryError", "CUDA out of memory", RuntimeError), "free memory"),
        (PermissionError(13, "Permission denied"), "right to read"),
        (ModuleNotFoundError("No module named 'kernels'", name="kernels"), "run: pip install kernels"),
        (ImportError("T5 requires the SentencePiece library but it was not found"), "run: pip install SentencePiece"),
        (ImportError("please run `pip install protobuf` first"), "run: pip install protobuf"),
        (KeyError("dtype"), "it lacks 'dtype'); add it"),
        (TypeError("f() missing 1 required positional argument: 'd_in'"), "saved by another release"),
        (named("ConnectError", "[Errno -2] Name or service not known"), "check the network"),
    ],
)
def test_the_remedy_fits_the_cause(monkeypatch, error, remedy):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    message = refused(error, allowed="something else", remedy="do something else")
    assert remedy in message
    assert "something else" not in message


def test_the_cause_is_also_found_in_the_errors_behind(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    behind = OSError("We couldn't find it in the cached files")
    behind.__cause__ = named("LocalEntryNotFoundError", "outgoing traffic has been disabled")
    assert "HF_HUB_OFFLINE is set: unset it" in refused(behind)


def test_an_error_without_a_known_cause_keeps_what_the_caller_says():
    message = refused(RuntimeError(), allowed="x", remedy="check y")
    assert message == "model 'm' cannot be loaded (RuntimeError); allowed: x; check y"


def test_a_panic_of_an_extension_is_caught_and_an_interruption_is_not():
    assert "index out of bounds" in refused(named("PanicException", "index out of bounds", BaseException))
    for error in (KeyboardInterrupt(), SystemExit(3), GeneratorExit(), InputError("ours")):
        with pytest.raises(type(error)) as caught, loading("model 'm'"):
            raise error
        assert caught.value is error


def test_outside_text_cannot_write_to_the_terminal_or_choose_a_command():
    message = refused(ImportError("\x1b[2J pip install $(reboot)"))
    assert "\x1b" not in message
    assert "run: pip install" not in message


def test_a_folder_is_not_sent_to_the_network(tmp_path):
    assert "network" not in origin_remedy(tmp_path)
    assert "network" in origin_remedy("somebody/their-model")


def outside_calls(tree):
    """Yield the name and line of each call of an outside loader that no `with loading(...)` surrounds."""

    def visit(node, inside):
        if isinstance(node, ast.With):
            managers = [ast.unparse(item.context_expr) for item in node.items]
            inside = inside or any(text.lstrip("_").startswith("loading(") for text in managers)
        if isinstance(node, ast.Call) and not inside:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in OUTSIDE or ast.unparse(node.func) == "torch.load":
                yield f"line {node.lineno}: {name}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree, False)


def test_no_model_sae_or_adapter_is_read_outside_the_boundary():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert [f"{name} {call}" for name, tree in trees.items() for call in outside_calls(tree)] == []


def test_an_outside_call_without_the_boundary_would_be_found():
    assert list(outside_calls(ast.parse("x = AutoModel.from_pretrained('m')"))) == ["line 1: from_pretrained"]
    assert not list(outside_calls(ast.parse("with loading('m'):\n    x = load_file('m')")))
