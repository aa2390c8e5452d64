from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from isaerft import config
from isaerft.errors import InputError
from isaerft.subjects.device import WIDE_ATTENTION, check_device, devices, in_float64, set_up_torch, widen_attention


def plan_on(device, subjects=("toy",)):
    return config.plan_from_dict(
        {
            "study": "small",
            "device": device,
            "subjects": {name: {"testbed": {}} for name in subjects},
            "behaviors": {n: {"description": n, "rule": True} for n in ("a", "b")},
            "adapters": {"bias": {}},
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
        }
    )


@pytest.fixture
def gpus(monkeypatch):
    def set_number(n):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return set_number


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CUDA", "cpu:0", ""])
def test_a_misspelt_device_is_refused_with_the_config(device):
    with pytest.raises(InputError, match="config key device"):
        plan_on(device)


@pytest.mark.parametrize(("device", "n"), [("cuda", 0), ("cuda:0", 0), ("cuda:7", 2), ("mps", 1)])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(gpus, device, n):
    gpus(n)
    with pytest.raises(InputError, match=f"device '{device}' is not there.*allowed: cpu") as caught:
        set_up_torch(plan_on(device))
    assert ("cuda:1" in str(caught.value)) == (n == 2)


def test_auto_is_a_gpu_where_there_is_one(gpus, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for n, device in ((0, "cpu"), (2, "cuda")):
        gpus(n)
        assert set_up_torch(plan_on("auto")) == device
    assert devices() == ["cpu", "cuda", "cuda:0", "cuda:1"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert set_up_torch(plan_on("auto")) == "cuda:1"
    check_device("cuda:1")


def test_a_job_for_which_others_wait_takes_idle_cores_only_where_no_other_subject_can_use_them(monkeypatch):
    used = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    set_up_torch(plan_on("cpu"), alone=True)
    set_up_torch(plan_on("cpu", ("toy", "other")), alone=True)
    set_up_torch(plan_on("cpu"))
    assert used == [2, 1, 1]


def test_float64_is_made_on_the_cpu_where_the_device_has_none():
    x = torch.tensor([0.1])
    metal = SimpleNamespace(device=SimpleNamespace(type="mps"), cpu=lambda: x)
    assert torch.equal(in_float64(metal), x.double())
    assert torch.equal(in_float64(x), x.double())


def test_a_narrow_model_on_a_cpu_attends_in_float32_and_gives_the_same_logits(model_of):
    model, tokens = deepcopy(model_of("llama")).to(torch.bfloat16), torch.arange(5, 25)[None]
    mask = torch.ones_like(tokens)
    mask[:, :3] = 0
    before = model(input_ids=tokens, attention_mask=mask).logits[:, 3:]
    widen_attention(model)
    assert model.config._attn_implementation == WIDE_ATTENTION
    after = model(input_ids=tokens, attention_mask=mask).logits[:, 3:]
    assert torch.allclose(after, before, atol=0.1)
    assert model.dtype == torch.bfloat16
    wide = model.float()
    wide.set_attn_implementation("sdpa")
    widen_attention(wide)
    assert wide.config._attn_implementation == "sdpa"
