"""Components of learned maps whose reading and writing are known, and what is put in a map's place."""

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import make_adapter
from isaerft.adapters.model import Residual
from isaerft.adapters.saved import save_adapter
from isaerft.adapters.weights import Lora
from isaerft.changes.components import Reading, components_of, write_components
from isaerft.changes.parts import INSIDE, LATENTS, RESIDUAL, heldout_loss, parts_of, signals
from isaerft.errors import InputError
from isaerft.layout import MapsFolder
from isaerft.subjects.cache import completion_losses, write_cache
from isaerft.subjects.hooks import linear_part

ROWS = torch.arange(4)
READ, WRITTEN = (7, 21), (13, 34)
STRENGTHS = (3.0, 0.4)
OPTIONS = config.MapComponents(n_components=8, n_named=3)


def planted(subject, kind):
    """A map of rank 2 that reads two latents and writes two others, one far more than the other."""
    dictionary = subject.dictionary
    if kind == "residual":
        adapter = Residual(subject.language.d_model, rank=4)
        for place, (read, written, strength) in enumerate(zip(READ, WRITTEN, STRENGTHS, strict=True)):
            with torch.no_grad():
                adapter.down[place] = dictionary.W_enc[:, read]
                adapter.up[:, place] = strength * dictionary.decoder[written]
        return adapter.requires_grad_(False)
    adapter = make_adapter(kind, dictionary.d_sae, {"rank": 4} if kind == "low_rank" else {"depth": 0})
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.zero_()
        for place, (read, written, strength) in enumerate(zip(READ, WRITTEN, STRENGTHS, strict=True)):
            if kind == "low_rank":
                adapter.down[read, place], adapter.up[place, written] = 1.0, strength
            else:
                adapter.output[read, written] = strength
    return adapter.requires_grad_(False)


@pytest.fixture
def lora(subject):
    """LoRA in the block above the hook, with weights that matter."""
    with Lora.on(subject, {"rank": 2}, 0) as adapter:
        with torch.no_grad():
            for name, weight in adapter.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
        yield adapter.requires_grad_(False)


def reading(subject, cached, options=OPTIONS):
    alive = torch.arange(1, subject.dictionary.d_sae)
    return Reading(subject, cached[1], ROWS, alive, options, 3)


@pytest.mark.parametrize("kind", ["low_rank", "residual", "mlp"])
def test_a_map_that_reads_one_latent_and_writes_another_is_named_by_them(subject, cached, kind):
    table = reading(subject, cached).table(planted(subject, kind))
    assert table.component.tolist() == [1, 2]
    assert [latents[0] for latents in table.reads_encoder] == list(READ)
    assert [latents[0] for latents in table.writes] == list(WRITTEN)
    assert table.reads_encoder_values[0][0] == pytest.approx(1, abs=0.01)
    assert table.writes_values[0][0] == pytest.approx(1, abs=0.01)
    assert table.share.sum() == pytest.approx(1)
    if kind != "residual":
        assert table.reads[0][0] == READ[0]
        assert table.reads_values[0][0] == pytest.approx(1, abs=0.05)


def test_what_a_component_reads_and_writes_is_named_in_tokens(subject, cached):
    """A map from the embedding of one token to the direction that raises the logit of another."""
    model = subject.model
    embedding = model.get_input_embeddings().weight
    gain, _ = linear_part(model.model.norm, embedding.new_ones(embedding.shape[1]))
    # A token that texts read with a positive mean, since that is a component's sign.
    read, written = int((embedding @ cached[1].residual.mean(0)).argmax()), 289
    adapter = Residual(subject.language.d_model, rank=1)
    with torch.no_grad():
        adapter.down[0] = embedding[read] / embedding[read].norm()
        adapter.up[:, 0] = gain * model.get_output_embeddings().weight[written]
    table = reading(subject, cached).table(adapter.requires_grad_(False))
    decode = subject.language.decode
    assert decode([written]) in table.writes_tokens[0]
    assert decode([read]) in table.reads_tokens[0]


def test_components_are_uncorrelated_on_text_and_add_up_to_the_map(subject, cached):
    adapter = make_adapter("low_rank", subject.dictionary.d_sae, {"rank": 3}, 1)
    with torch.no_grad():
        adapter.up.normal_(generator=torch.Generator().manual_seed(1))
    (part,) = parts_of(subject, adapter)
    batch, decoder = cached[1].batch(ROWS), subject.dictionary.decoder.double()
    ((signal, tokens),) = signals(subject, adapter, [part], batch)
    split = components_of(part, signal, decoder)
    added = signal @ part.write @ decoder
    close = {"atol": 1e-8, "rtol": 1e-8}
    torch.testing.assert_close(split.signal @ split.written, added, **close)
    torch.testing.assert_close(split.read @ split.write, part.read @ part.write, **close)
    torch.testing.assert_close(split.written @ split.written.T, torch.eye(3).double(), **close)
    moments = split.signal.T @ split.signal / len(signal)
    torch.testing.assert_close(moments, torch.diag(split.size.square()), **close)
    assert (split.signal.mean(0) >= 0).all()
    assert (split.size.diff() <= 0).all()
    torch.testing.assert_close(batch.codes.dense()[tokens].double() @ split.read, split.signal, atol=1e-4, rtol=1e-4)


def test_neither_the_factors_of_a_map_nor_directions_no_text_takes_matter(subject, cached):
    """The same map as other factors; and a silent latent's weight, however large, changes nothing."""
    adapter, plain = planted(subject, "low_rank"), reading(subject, cached).table(planted(subject, "low_rank"))
    mix = torch.eye(4) + torch.triu(torch.full((4, 4), 5.0), 1)
    with torch.no_grad():
        adapter.down[0] = 1000.0
        adapter.down.copy_(adapter.down @ mix)
        adapter.up.copy_(torch.linalg.inv(mix) @ adapter.up)
    table = reading(subject, cached).table(adapter)
    np.testing.assert_allclose(table["size"][:2], plain["size"], rtol=1e-4)
    assert [latents[0] for latents in table.writes][:2] == list(WRITTEN)


def test_a_map_of_one_component_loses_everything_without_it_and_keeps_everything_with_it(subject, cached):
    adapter = planted(subject, "residual")
    with torch.no_grad():
        adapter.up[:, 1] = 0
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    table = reading(subject, cached).table(adapter)
    assert len(table) == 1
    batch = cached[1].batch(ROWS)
    base = float(completion_losses(subject, batch, batch.residual).mean())
    adapted = float(completion_losses(subject, batch, adapter.adapted(subject, batch)).mean())
    assert abs(base - adapted) > 1e-3
    assert table.loss_base[0] == pytest.approx(base, rel=1e-5)
    assert table.loss_adapted[0] == pytest.approx(adapted, rel=1e-5)
    assert table.loss_without[0] == pytest.approx(base, rel=1e-5)
    assert table.loss_alone[0] == pytest.approx(adapted, rel=1e-5)
    for name, value in adapter.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_bias_is_a_component_of_its_own_that_reads_nothing(subject, cached):
    adapter = Residual(subject.language.d_model, rank=2, bias=True)
    with torch.no_grad():
        adapter.bias.copy_(2 * subject.dictionary.decoder[WRITTEN[0]])
    table = reading(subject, cached).table(adapter.requires_grad_(False))
    assert table.component.tolist() == [0]
    assert table.writes[0][0] == WRITTEN[0]
    assert table["size"][0] == pytest.approx(2 * float(subject.dictionary.decoder_norm[WRITTEN[0]]), rel=1e-5)
    assert table.loss_without[0] == pytest.approx(table.loss_base[0])
    assert table.loss_alone[0] == pytest.approx(table.loss_adapted[0])
    assert table.reads[0] is None or np.isnan(table.reads[0])


def test_a_signal_that_is_the_same_everywhere_is_told_from_one_that_varies(subject, cached):
    """A read direction along the mean of the residual stream acts like a bias; one across it does not."""
    text = cached[1].residual.double()
    mean = text.mean(0)
    adapter = Residual(subject.language.d_model, rank=1)
    shares = []
    for direction in (mean, torch.randn(32, generator=torch.Generator().manual_seed(0)).double()):
        across = direction if direction is mean else direction - mean * (direction @ mean) / (mean @ mean)
        with torch.no_grad():
            adapter.down[0] = across
            adapter.up[:, 0] = subject.dictionary.decoder[3]
        shares.append(reading(subject, cached).table(adapter.requires_grad_(False)).constant_share[0])
    assert shares[0] > 5 * shares[1]


def test_every_weight_of_a_lora_is_a_part_that_can_be_put_back(subject, cached, lora):
    parts = parts_of(subject, lora)
    assert len(parts) == 7
    before = heldout_loss(subject, lora, cached[1], ROWS, 4)
    for part in parts:
        part.silence()
    batch = cached[1].batch(ROWS)
    silent = heldout_loss(subject, lora, cached[1], ROWS, 4)
    for part in parts:
        part.restore()
    assert heldout_loss(subject, lora, cached[1], ROWS, 4) == pytest.approx(before, rel=1e-6)
    assert silent != pytest.approx(before, rel=1e-4)
    read = signals(subject, lora, parts, batch)
    (gate,) = (place for place, part in enumerate(parts) if part.name.endswith("gate_proj"))
    (query,) = (place for place, part in enumerate(parts) if part.name.endswith("q_proj"))
    text = torch.ones_like(batch.mask)
    text[:, 0] = False
    assert len(read[query][0]) == int((batch.mask & text).sum())
    # The last block's MLP runs only where a completion token is predicted.
    assert len(read[gate][0]) == int(batch.predicts.sum()) == int(read[gate][1].sum())
    norm = subject.model.model.layers[2].input_layernorm(batch.residual[(batch.mask & text)[batch.mask]])
    torch.testing.assert_close(read[query][0], norm.double() @ parts[query].read, atol=1e-4, rtol=1e-4)


def test_a_lora_below_the_hook_is_read_too(subject, cached):
    with Lora.on(subject, {"rank": 1, "where": "below"}, 0) as adapter:
        with torch.no_grad():
            for name, weight in adapter.named_parameters():
                if "down_proj" in name and "lora_B" in name:
                    weight.normal_(generator=torch.Generator().manual_seed(0))
        table = reading(subject, cached).table(adapter.requires_grad_(False))
    assert set(table.part) == {"blocks.0.mlp.down_proj", "blocks.1.mlp.down_proj"}
    assert table.writes.notna().all()
    assert table.reads.isna().all(), "it reads the MLP's hidden units"


READERS = {
    "llama": ("self_attn.q_proj self_attn.k_proj self_attn.v_proj mlp.gate_proj mlp.up_proj", "o_proj down_proj"),
    "gpt2": ("attn.c_attn mlp.c_fc", "c_proj"),
    "gpt_neox": ("attention.query_key_value mlp.dense_h_to_4h", "dense dense_4h_to_h"),
    "gemma2": ("self_attn.q_proj self_attn.k_proj self_attn.v_proj mlp.gate_proj mlp.up_proj", "o_proj down_proj"),
}


@pytest.mark.parametrize("architecture", READERS)
def test_it_is_known_which_weights_read_and_write_the_residual_stream(architecture, tiny, tokenizer, tmp_path):
    model = tiny.make_model(architecture, len(tokenizer))
    subject = tiny.place(tmp_path / "sae", model, tokenizer, "blocks.1.hook_resid_post")
    with Lora.on(subject, {"rank": 1}, 0) as adapter:
        parts = parts_of(subject, adapter)
    readers, writers = READERS[architecture]
    assert {part.name.removeprefix("blocks.2.") for part in parts if part.reads.space == RESIDUAL} == set(
        readers.split()
    )
    wrote = {part.name.rpartition(".")[2] for part in parts if part.writes.space == RESIDUAL}
    assert wrote == set(writers.split())
    assert all(part.reads.space == INSIDE for part in parts if part.writes.space == RESIDUAL)
    gained = [part for part in parts if part.writes.gain is not None]
    assert bool(gained) == (architecture == "gemma2"), "a normalization behind the part"


def test_the_directions_of_a_map_behind_a_normalization_are_those_of_the_residual_stream(tiny, tokenizer, tmp_path):
    model = tiny.make_model("gpt2", len(tokenizer))
    with torch.no_grad():
        model.transformer.h[2].ln_1.weight.normal_(generator=torch.Generator().manual_seed(0))
    subject = tiny.place(tmp_path / "sae", model, tokenizer, "blocks.1.hook_resid_post")
    with Lora.on(subject, {"rank": 1}, 0) as adapter:
        (part,) = (part for part in parts_of(subject, adapter) if part.name.endswith("c_attn"))
    direction = part.reads.in_residual(part.read[:, 0])
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    norm = model.transformer.h[2].ln_1
    signal = (norm(x) - norm.bias).double() @ part.read[:, 0]
    scale = x.double().std(dim=1, correction=0)
    torch.testing.assert_close(x.double() @ direction / scale, signal, atol=1e-4, rtol=1e-4)


def study_of(kinds, **options):
    return config.plan_from_dict(
        {
            "study": "maps",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {"a": {"description": "a", "rule": True}, "b": {"description": "b", "rule": True}},
            "adapters": {name: {} for name in kinds} | {"bias": {}},
            "sources": {"said": {"kind": "local"}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "lexical"},
            "map_components": options,
            "batch_size": 3,
            "controls": [],
            "agreement": {"min_firing_rate": 0.01},
        }
    )


def test_the_maps_of_a_behavior_are_read_from_their_files_seed_by_seed(subject, cached, tmp_path):
    plan = study_of(["low_rank", "residual"], n_components=1, n_named=2)
    assert plan.mapped_adapters == ["low_rank", "residual"]
    write_cache({"train": cached[0], "heldout": cached[1]}, tmp_path / "cache")
    for kind in ("low_rank", "residual"):
        for seed in range(2):
            adapter = planted(subject, kind)
            adapter.kind = kind
            save_adapter(adapter, tmp_path / "adapters" / kind / f"seed_{seed}", subject.dictionary)
    rate = np.full(48, 0.1)
    rate[[0, WRITTEN[0]]] = 0
    facts = pd.DataFrame({"latent_index": range(48), "firing_rate": rate})
    out = MapsFolder(tmp_path / "maps")
    write_components(plan, subject, facts, tmp_path / "cache", tmp_path / "adapters", out)
    table = pd.read_parquet(out.components)
    assert table[["adapter", "seed"]].to_numpy().tolist() == [
        [kind, seed] for kind in ("low_rank", "residual") for seed in range(2)
    ]
    assert table.n_components.tolist() == [2] * 4
    assert all(len(latents) == 2 for latents in table.writes)
    assert not any(WRITTEN[0] in latents for latents in table.writes), "a latent that never fires names nothing"
    assert len(table.read_vector[0]) == 48
    assert len(table.read_vector[2]) == len(table.write_vector[0]) == 32
    pulled = pd.read_parquet(out.pullback)
    assert set(pulled.adapter) == {"residual"}
    assert sorted(pulled.latent_index.unique()) == [i for i in range(48) if rate[i]]


def test_spaces_of_latent_maps_are_latents(subject):
    (part,) = parts_of(subject, planted(subject, "low_rank"))
    assert (part.reads.space, part.writes.space) == (LATENTS, LATENTS)
    assert parts_of(subject, make_adapter("bias", 48, {})) == []
    assert parts_of(subject, make_adapter("mlp", 48, {})) == [], "a network with a hidden layer is no linear map"


@pytest.mark.parametrize(
    ("adapters", "options", "message"),
    [
        ([], {}, "without an adapter that is a linear map"),
        (["low_rank"], {"adapters": ["bias"]}, "map_components.adapters.*'bias'.*low_rank"),
        (["low_rank"], {"n_components": 0}, "n_components"),
    ],
)
def test_a_study_without_the_maps_that_it_asks_for_is_refused(adapters, options, message):
    with pytest.raises(InputError, match=message):
        study_of(adapters, **options)
