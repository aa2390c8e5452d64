"""Adapters in a model's own forward pass do what the cached path does, and are switched, saved and taken out again."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import isaerft
from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.hooked import begins_with_bos
from isaerft.adapters.saved import load_adapter, save_adapter
from isaerft.errors import InputError
from isaerft.subjects.capture import capture, tokenize
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.hooks import hidden_above, unembed
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.points import find_hook
from isaerft.training.loop import train

HOOK = "blocks.1.hook_resid_post"
INSIDE = ("attn", "mlp")
KINDS = ("bias", "scale", "affine", "low_rank", "mlp")


@pytest.fixture
def model(model_of):
    return deepcopy(model_of("llama"))


@pytest.fixture
def sae(subject_folder):
    return load_dictionary(subject_folder / "sae")


@pytest.fixture
def table(subject, records):
    """Six rows of different lengths, padded on the right."""
    rows = [tokenize(record, subject.language, 32)[0] for record in records[:6]]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def stir(adapter, seed=0, size=0.5):
    """Move an adapter away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return adapter


def logits_of(model, table):
    with torch.no_grad():
        return model(**table, use_cache=False).logits


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen3"])
@pytest.mark.parametrize(
    "hook",
    ["blocks.0.hook_resid_pre", HOOK, "blocks.2.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"],
)
def test_a_new_adapter_is_the_exact_identity(model_of, sae, table, architecture, hook):
    model = deepcopy(model_of(architecture))
    before = logits_of(model, table)
    for kind in KINDS:
        isaerft.attach(model, sae, kind, name=kind, hook_name=hook)
    assert torch.equal(logits_of(model, table), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("architecture", "hook"),
    [
        ("llama", "blocks.0.hook_resid_pre"),
        ("llama", "blocks.2.hook_resid_post"),
        *((name, HOOK) for name in ("llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "mistral", "qwen2")),
        *((name, f"blocks.1.hook_{at}_out") for name in ("llama", "gpt2", "gpt_neox", "gemma2") for at in INSIDE),
        *((name, "blocks.1.hook_resid_mid") for name in ("llama", "gpt2", "gemma2")),
    ],
)
def test_attached_logits_are_those_of_the_cached_path(model_of, subject, sae, records, table, architecture, hook, kind):
    model = deepcopy(model_of(architecture))
    sae = replace(sae, b_enc=torch.zeros(48))  # embeddings are small, and about half of the latents shall fire
    used = LoadedSubject(replace(subject.language, model=model), sae, find_hook(model, hook))
    batch = capture(used, records[:6], 32, 4).batch(torch.arange(6))
    adapter = stir(make_adapter(kind, sae.d_sae, {}))
    real = table["attention_mask"].bool()
    with torch.no_grad():
        padded = torch.zeros(*batch.mask.shape, sae.d_in)
        padded[batch.mask] = adapted(used, adapter, batch)
        expected = unembed(model, hidden_above(model, used.hook, padded, batch.mask.long())[batch.mask])
    plain = logits_of(model, table)[real]
    isaerft.attach(model, sae, adapter, hook_name=hook)
    found = logits_of(model, table)[real]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - plain).abs().max() > 1e-2


def test_training_attached_is_training_from_the_cache_step_for_step(model, subject, sae, cached, records):
    for kind in ("bias", "scale"):
        options = config.Adapter(learning_rate=0.3, steps=5, batch_size=12, subsample=1, evaluate_every=1, patience=99)
        adapter, seen = make_adapter(kind, sae.d_sae, {}), []

        def adapt(batch, adapter=adapter, seen=seen):
            if torch.is_grad_enabled():
                seen.append(torch.cat([p.detach().clone() for p in adapter.parameters()]))
            return adapted(subject, adapter, batch)

        train(subject, adapter, adapt, *cached, options, seed=0, batch_size=4)
        pairs = [tokenize(record, subject.language, 32) for record in records[:12]]
        length = max(len(tokens) for tokens, _ in pairs)
        ids = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in pairs])
        labels = ids.masked_fill(ids == 0, -100)
        for row, (_, n_before) in enumerate(pairs):
            labels[row, :n_before] = -100
        attached = isaerft.attach(model, sae, kind)
        parameters = [p for p in model.parameters() if p.requires_grad]
        assert [id(p) for p in parameters] == [id(p) for p in attached.adapter().parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.3, momentum=0.9)
        scale, steps = None, []
        for _ in range(5):
            steps.append(torch.cat([p.detach().clone() for p in parameters]))
            optimizer.zero_grad()
            model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss.backward()
            scale = scale or 1 / float(torch.stack([p.grad.norm() for p in parameters]).norm())
            for parameter in parameters:
                parameter.grad.mul_(scale)
            optimizer.step()
        torch.testing.assert_close(torch.stack(seen), torch.stack(steps), atol=1e-5, rtol=1e-4)
        assert seen[-1].norm() > 0.3
        attached.detach()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_generation_with_a_cache_is_generation_without_one_and_padding_changes_nothing(model_of, sae, architecture):
    model = deepcopy(model_of(architecture))
    attached = isaerft.attach(model, sae, stir(make_adapter("affine", sae.d_sae, {})))
    prompts = [[1, 40, 41, 42, 43], [1, 50, 51]]
    ids = torch.tensor([[0] * (5 - len(prompt)) + prompt for prompt in prompts])
    given = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    cached = model.generate(**given, **settings)
    assert torch.equal(cached, model.generate(**given, **settings, use_cache=False))
    alone = model.generate(torch.tensor([prompts[1]]), **settings)
    assert cached[1, 2:].tolist() == alone[0].tolist()
    with attached.disabled():
        assert not torch.equal(model.generate(**given, **settings), cached)


def test_at_bos_no_latent_counts_as_active_wherever_the_row_begins(model, sae):
    attached = isaerft.attach(model, sae, stir(make_adapter("scale", sae.d_sae, {})))
    right, left = torch.tensor([[1, 40, 41, 0, 0]]), torch.tensor([[0, 0, 1, 40, 41]])
    moved = {}
    for name, ids in (("right", right), ("left", left)):
        seen = []
        handle = model.model.layers[2].register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0]))
        table = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        position_ids = (table["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        model(**table, position_ids=position_ids)
        with attached.disabled():
            model(**table, position_ids=position_ids)
        handle.remove()
        moved[name] = (seen[0] - seen[1])[0][table["attention_mask"][0].bool()]
    torch.testing.assert_close(moved["right"], moved["left"], atol=1e-5, rtol=1e-5)
    assert not moved["right"][0].any()
    assert (moved["right"][1:].abs().amax(-1) > 0.01).all()


class Cache:
    def get_seq_length(self):
        return 3


def test_a_row_begins_with_bos_at_its_first_token_that_is_not_masked():
    ids = torch.tensor([[1, 5, 1, 6], [0, 1, 5, 1], [5, 1, 6, 1]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    wanted = [[True, False, False, False], [False, True, False, False], [False] * 4]
    assert begins_with_bos({"input_ids": ids, "attention_mask": mask}, 1).tolist() == wanted
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = begins_with_bos({"input_ids": ids, "attention_mask": mask, "position_ids": positions}, 1)
    assert found.tolist() == wanted
    packed = {"input_ids": ids[:1], "position_ids": torch.tensor([[0, 1, 0, 1]])}
    assert begins_with_bos(packed, 1).tolist() == [[True, False, True, False]]
    assert begins_with_bos({"input_ids": ids}, 1).tolist() == [[True] + [False] * 3, [False] * 4, [False] * 4]


def test_in_the_key_value_cache_a_row_has_already_begun():
    new = {"input_ids": torch.tensor([[1]]), "past_key_values": Cache()}
    assert not begins_with_bos(new, 1).any()
    assert not begins_with_bos(new | {"attention_mask": torch.ones(1, 4, dtype=torch.int64)}, 1).any()
    assert not begins_with_bos(new | {"position_ids": torch.tensor([[3]])}, 1).any()
    assert begins_with_bos({"input_ids": torch.tensor([[4, 5]])}, 1) is None
    assert begins_with_bos({"inputs_embeds": torch.zeros(1, 2, 3)}, 1) is None


def test_two_saes_at_two_layers_act_together_and_the_gradient_flows_through_both(model, sae, table, tiny, tmp_path):
    later = load_dictionary(
        tiny.write_sae(tmp_path / "later", tiny.random_sae(seed=5), hook_name="blocks.2.hook_resid_pre")
    )
    sae = replace(sae, hook_name="blocks.0.hook_resid_post")
    attached = isaerft.attach(model, sae, "bias")
    assert isaerft.attach(model, later, "scale") is attached is model.isaerft
    first = stir(attached.adapter(hook_name=sae.hook_name), 1)
    stir(attached.adapter(hook_name=later.hook_name), 2)
    assert attached.names == ["default"]

    def loss():
        logits = model(**table).logits[:, :-1].flatten(0, 1).double()
        return cross_entropy(logits, table["input_ids"][:, 1:].flatten())

    (gradient,) = torch.autograd.grad(loss(), first.bias)
    direction = torch.randn(48, generator=torch.Generator().manual_seed(0))
    values = []
    with torch.no_grad():
        for step in (1e-2, -2e-2):
            first.bias.add_(step * direction)
            values.append(float(loss()))
    assert float(gradient @ direction) == pytest.approx((values[0] - values[1]) / 2e-2, rel=2e-2)
    before = logits_of(model, table)
    with attached.disabled():
        assert (logits_of(model, table) - before).abs().max() > 0.1
    with pytest.raises(InputError, match=r"'default' acts at 2 SAEs; give hook_name, one of blocks\.0"):
        attached.adapter()


def test_named_adapters_are_switched_and_their_changes_add_up(model, sae, table):
    attached = isaerft.attach(model, sae, stir(make_adapter("bias", 48, {}), 1), name="a")
    isaerft.attach(model, sae, stir(make_adapter("scale", 48, {}), 2), name="b")
    both = logits_of(model, table)
    assert attached.names == ["a", "b"]
    assert attached.active == {"a", "b"}
    with attached.disabled():
        plain = logits_of(model, table)
        with attached.using("a"):
            only_a = logits_of(model, table)
            assert attached.active == {"a"}
        assert not attached.active
    assert torch.equal(logits_of(model, table), both)
    attached.set("b")
    only_b = logits_of(model, table)
    assert len({float(x.sum()) for x in (both, plain, only_a, only_b)}) == 4
    assert {name.split(".")[4] for name, p in model.named_parameters() if p.requires_grad} == {"b"}
    with pytest.raises(RuntimeError, match="inside"), attached.using("a"):
        raise RuntimeError("inside")
    assert attached.active == {"b"}
    attached.set()
    assert torch.equal(logits_of(model, table), plain)
    with pytest.raises(InputError, match=r"unknown adapter 'c'; allowed: a, b"):
        attached.set("c")


@pytest.mark.parametrize(
    ("hook", "reentrant"),
    [
        ("blocks.0.hook_resid_post", False),
        ("blocks.1.hook_mlp_out", False),
        ("blocks.1.hook_resid_mid", False),
        ("blocks.0.hook_resid_post", True),
        ("blocks.1.hook_mlp_out", True),
    ],
)
def test_gradient_checkpointing_gives_the_same_gradients_also_with_a_reference_pass_between(
    model, sae, table, reentrant, hook
):
    adapter = stir(make_adapter("affine", 48, {}))
    attached = isaerft.attach(model, sae, adapter, hook_name=hook)
    other = {"input_ids": torch.tensor([[40, 41, 42]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        model.train()
        model.zero_grad()
        loss = model(**table, labels=table["input_ids"], use_cache=False).loss
        with torch.no_grad(), attached.disabled():
            model(**other, use_cache=False)
        loss.backward()
        gradients.append(torch.stack([p.grad.clone() for p in adapter.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-5)
    assert gradients[0].abs().max() > 1e-4


def test_adapters_are_saved_in_the_pipelines_files_and_read_again(model, model_of, sae, table, tmp_path):
    attached = isaerft.attach(model, sae, stir(make_adapter("bias", 48, {}), 1), name="a")
    isaerft.attach(model, sae, "low_rank", name="b", hook_name="blocks.0.hook_resid_post", rank=3)
    stir(attached.adapter("b"), 2)
    expected = logits_of(model, table)
    attached.save(tmp_path / "out")
    leaf = tmp_path / "out" / "a" / HOOK
    assert torch.equal(load_adapter(leaf, 48).bias, attached.adapter("a").bias)
    save_adapter(attached.adapter("a"), tmp_path / "pipeline", sae)
    assert all((tmp_path / "pipeline" / path.name).read_bytes() == path.read_bytes() for path in leaf.iterdir())
    fresh = deepcopy(model_of("llama"))
    again = isaerft.attach(fresh, sae, leaf, name="a")
    isaerft.attach(fresh, sae, "low_rank", name="b", hook_name="blocks.0.hook_resid_post", rank=3, seed=9)
    again.load(tmp_path / "out")
    assert torch.equal(logits_of(fresh, table), expected)
    other = isaerft.attach(deepcopy(model_of("llama")), sae, "scale", name="a")
    with pytest.raises(InputError, match=r"'bias' with options \{\}; allowed: 'scale'"):
        other.load(tmp_path / "out")


def test_detaching_leaves_the_model_as_it_was_found(model, sae, table):
    model.requires_grad_(True)
    before, keys, attributes = logits_of(model, table), set(model.state_dict()), set(vars(model))
    ignored = model._keys_to_ignore_on_save
    attached = isaerft.attach(model, sae, stir(make_adapter("bias", 48, {})))
    assert not torch.equal(logits_of(model, table), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"isaerft.hooks.blocks-1-hook_resid_post.adapters.default.bias"}
    attached.detach()
    assert torch.equal(logits_of(model, table), before)
    assert all(p.requires_grad for p in model.parameters())
    assert set(model.state_dict()) == keys
    assert set(vars(model)) == attributes
    assert model._keys_to_ignore_on_save == ignored
    assert not model.model._forward_pre_hooks
    isaerft.attach(model, sae, "bias")


def test_a_copy_of_the_model_has_adapters_of_its_own(model, sae, table):
    isaerft.attach(model, sae, stir(make_adapter("bias", 48, {})))
    twin = deepcopy(model)
    assert torch.equal(logits_of(twin, table), logits_of(model, table))
    with twin.isaerft.disabled():
        assert not torch.equal(logits_of(twin, table), logits_of(model, table))
    stir(twin.isaerft.adapter(), 5)
    assert not torch.equal(logits_of(twin, table), logits_of(model, table))


def test_adapters_stay_in_float32_when_the_model_does_not(model, sae, table):
    attached = isaerft.attach(model, sae, stir(make_adapter("affine", 48, {})))
    exact = logits_of(model, table)
    model.to(torch.bfloat16)
    assert {p.dtype for p in attached.adapter().parameters()} == {torch.float32}
    found = logits_of(model, table)
    assert found.dtype == torch.bfloat16
    assert torch.corrcoef(torch.stack([found.float().flatten(), exact.flatten()]))[0, 1] > 0.99


def test_an_sae_of_sae_lens_a_folder_and_a_dictionary_are_the_same(model_of, sae, tiny, table, tmp_path):
    from sae_lens import SAE

    folder = tiny.write_sae(tmp_path / "sae", tiny.random_sae(), dtype="float32", device="cpu")
    results = []
    for given in (sae, str(folder), SAE.load_from_disk(folder)):
        model = deepcopy(model_of("llama"))
        stir(isaerft.attach(model, given, "affine").adapter())
        results.append(logits_of(model, table))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_an_adapter_of_the_original_code_attaches_by_its_folder(model_of, sae, table, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "ISAERFT"}')
    (tmp_path / "blocks_manifest.json").write_text('{"block_names": ["blocks_1_hook_resid_post"]}')
    values = torch.randn(48, generator=torch.Generator().manual_seed(0))
    torch.save({"sequential.0.bias": values}, tmp_path / "blocks_1_hook_resid_post.pt")
    results = []
    for adapter, options in [(str(tmp_path), {}), ("saved", {"path": str(tmp_path)})]:
        model = deepcopy(model_of("llama"))
        attached = isaerft.attach(model, sae, adapter, **options)
        assert torch.equal(attached.adapter().bias.detach(), values)
        results.append(logits_of(model, table))
    assert torch.equal(*results)
    with pytest.raises(InputError, match=r"no block for hook blocks\.0"):
        isaerft.attach(deepcopy(model_of("llama")), sae, tmp_path, hook_name="blocks.0.hook_resid_post")


def test_what_does_not_fit_is_refused_with_the_mend(model, sae, tmp_path):
    nowhere = replace(sae, hook_name="")
    cases = [
        (sae, "biass", {}, r"unknown adapter 'biass'.*did you mean 'bias'"),
        (sae, "bias", {"rank": 2}, r"adapter 'bias' with options"),
        (sae, "lora", {}, r"does not act on latents.*PEFT"),
        (sae, "probe", {}, r"not trained but fitted; fit it in a study"),
        (sae, make_adapter("bias", 7, {}), {}, r"an adapter for 7 latents; allowed: 48"),
        (sae, tmp_path, {}, r"a folder with adapter_config\.json"),
        (sae, "bias", {"name": "a.b"}, r"adapter name 'a\.b'"),
        (sae, "bias", {"name": "keys"}, r"adapter name 'keys'"),
        (sae, "bias", {"hook_name": "blocks.9.hook_resid_post"}, r"the model has 3 blocks"),
        (nowhere, "bias", {}, r"without a hook name; give hook_name"),
        (3, "bias", {}, r"SAE 'int'; allowed: an SAE of sae_lens, a folder"),
        (tmp_path / "none", "bias", {}, r"does not exist"),
    ]
    for given, adapter, options, message in cases:
        with pytest.raises(InputError, match=message):
            isaerft.attach(model, given, adapter, **options)
        assert not hasattr(model, "isaerft")
    isaerft.attach(model, sae, "bias")
    with pytest.raises(InputError, match=r"'default' is already attached at blocks\.1\.hook_resid_post; give another"):
        isaerft.attach(model, sae, "scale")


def test_a_second_sae_at_the_same_hook_is_refused(model, sae, tiny, tmp_path):
    isaerft.attach(model, sae, "bias")
    other = tiny.write_sae(tmp_path, tiny.random_sae(seed=5))
    with pytest.raises(InputError, match=rf"another SAE is already attached at {HOOK}"):
        isaerft.attach(model, other, "bias", name="b")


def test_a_damaged_sae_is_refused_in_one_line(model, tiny, tmp_path):
    folder = tiny.write_sae(tmp_path, tiny.random_sae())
    (folder / "sae_weights.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="is a git-lfs pointer"):
        isaerft.attach(model, folder, "bias")


def test_a_saved_adapter_is_attached_only_at_the_sae_it_was_trained_at(model, model_of, sae, tiny, tmp_path):
    isaerft.attach(model, sae, "bias").save(tmp_path / "out")
    leaf, fresh = tmp_path / "out" / "default" / HOOK, deepcopy(model_of("llama"))
    other = tiny.write_sae(tmp_path / "sae", tiny.random_sae(seed=5))
    with pytest.raises(InputError, match=r"was trained at another SAE .*; choose the subject"):
        isaerft.attach(fresh, other, leaf)
    with pytest.raises(InputError, match=rf"was trained at another SAE \('{HOOK}'\)"):
        isaerft.attach(fresh, sae, leaf, hook_name="blocks.0.hook_resid_post")
    isaerft.attach(fresh, other, load_adapter(leaf, 48))


@pytest.mark.parametrize("own", [True, False])
def test_training_in_which_every_adapter_is_frozen_is_warned_of_once(model, sae, table, caplog, own):
    from peft import LoraConfig, get_peft_model

    attached = isaerft.attach(model, sae, "bias")
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2))
    assert not any(p.requires_grad for p in attached.parameters())
    if own:
        attached.set("default")
    wrapped.eval()
    wrapped(**table)
    wrapped.train()
    with torch.no_grad():
        wrapped(**table)
    assert not caplog.text
    for _ in range(2):
        wrapped(**table, labels=table["input_ids"]).loss.backward()
    assert caplog.text.count("learn nothing") == (not own)
    assert ("call model.isaerft.set('default') after get_peft_model" in caplog.text) == (not own)
    assert (attached.adapter().bias.grad is not None) == own


def test_save_pretrained_refuses_an_upload_and_only_the_main_process_writes(model, sae, tmp_path):
    isaerft.attach(model, sae, "bias")
    with pytest.raises(InputError, match=r"push_to_hub=True .*model\.isaerft\.push_to_hub"):
        model.save_pretrained(tmp_path / "out", push_to_hub=True)
    model.save_pretrained(tmp_path / "out", is_main_process=False)
    assert not (tmp_path / "out").exists()
    model.save_pretrained(save_directory=tmp_path / "out", safe_serialization=True)
    assert (tmp_path / "out" / "model.safetensors").is_file()
