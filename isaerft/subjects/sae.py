"""Get a subject's SAE: from SAELens' directory, from a local folder, or by training.

This is the only module that imports sae_lens. It writes SAELens' own format, with every normalization that is one
number for all tokens folded into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from isaerft import config
from isaerft.directory import saes_directory
from isaerft.errors import InputError
from isaerft.io import read_json, replacing, write_json
from isaerft.outside import loading
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.dictionary import CARD, WEIGHTS, Dictionary, check_linear, hook_of, load_dictionary, read_card
from isaerft.subjects.hooks import run_below
from isaerft.subjects.load import LoadedModel, check_fit
from isaerft.subjects.points import find_hook

if TYPE_CHECKING:
    from sae_lens import SAE

FINAL_LEARNING_RATE_FACTOR = 0.1
DEAD_AFTER_STEPS = 100
MAX_TRAINING_TOKENS = 2_000_000


def fetch_sae(subject: config.Subject, language: LoadedModel, folder: str | Path) -> None:
    """Load a pretrained SAE with SAELens, check that it fits the model, and write it to `folder`, atomically.

    Raises
    ------
    InputError
        The release or id is unknown, there is no network, the SAE is not a linear dictionary, its normalization is not
        folded in, or the model does not have its width or hook.
    """
    name = subject.sae_path or f"{subject.release}, {subject.sae_id}"
    if subject.sae_path is not None:
        sae = _from_folder(Path(subject.sae_path))
    else:
        sae = published_sae(subject.release or "", subject.sae_id or "")
    if subject.norm_scaling_factor is not None:
        if sae.cfg.normalize_activations != "expected_average_only_in":
            raise InputError(
                f"norm_scaling_factor {subject.norm_scaling_factor:g} for an SAE ({name}) whose normalize_activations"
                f" is {sae.cfg.normalize_activations!r}",
                remedy="remove norm_scaling_factor: this SAE has no average norm to fold",
            )
        sae.fold_activation_norm_scaling_factor(subject.norm_scaling_factor)
    check_linear(name, sae.cfg.architecture(), sae.cfg.normalize_activations, sae.cfg.reshape_activations)
    if subject.hook_name:
        sae.cfg.metadata.hook_name = subject.hook_name
    if subject.release is not None:
        sae.cfg.metadata.release, sae.cfg.metadata.sae_id = subject.release, subject.sae_id
        sae.cfg.metadata.neuronpedia_id = saes_directory().source_of(
            subject.release, subject.sae_id, sae.cfg.metadata.neuronpedia_id
        )
    hook_name, d_in = hook_of(sae.cfg.metadata.to_dict()), sae.cfg.d_in
    hook = find_hook(
        language.model,
        hook_name,
        sae.cfg.metadata.hook_name_out or "",
        fold_value_biases=subject.fold_value_biases,
    )
    check_fit(language.model, hook, d_in, getattr(sae.cfg, "d_out", d_in), hook_name)
    _save(sae.save_model, folder)


def published_sae(release: str, sae_id: str) -> SAE[Any]:
    """Return an SAE of SAELens' directory, as SAELens loads it.

    Raises
    ------
    InputError
        The release or id is unknown, there is no network, or the SAE is one that `check_loader` refuses.
    """
    from sae_lens import SAE

    check_loader(release, sae_id)
    with loading(f"SAE ({release}, {sae_id})", remedy="check release, sae_id and the network"):
        return SAE.from_pretrained(release, sae_id)


def read_sae(folder: str | Path, *, center: bool = False) -> Dictionary:
    """Read a dictionary from a folder that any release of SAELens wrote, by the rules of a study.

    Raises
    ------
    InputError
        As for `load_dictionary`, or SAELens cannot read a folder of an earlier release.
    """
    if read_card(folder).is_current:
        return load_dictionary(folder, center=center)
    with TemporaryDirectory() as temporary:
        _from_folder(Path(folder)).save_model(temporary)
        return load_dictionary(temporary, center=center)


def writer_of(sae: object) -> Callable[[str | Path], object] | None:
    """Return what writes an SAE of SAELens to a folder, one in training as it is used; None for another object."""
    return getattr(sae, "save_inference_model", None) or getattr(sae, "save_model", None)


def _from_folder(folder: Path) -> SAE[Any]:
    """Return the SAE in a local folder as SAELens reads it: a linear dictionary, with weights in safetensors."""
    from sae_lens import SAE

    read_card(folder, folded=False)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"SAE ({folder}) has no {WEIGHTS}", remedy="save it with SAELens (sae.save_model)")
    with loading(f"SAE ({folder})", folder, remedy="save it again with SAELens (sae.save_model)"):
        return SAE.load_from_disk(folder)


def train_sae(
    options: config.TrainSae,
    language: LoadedModel,
    rows: TokenRows,
    *,
    hook_name: str,
    folder: str | Path,
    seed: int,
    frozen: str | None = None,
) -> None:
    """Train an SAE on the hook's activation with SAELens' trainer and write it to `folder`, atomically.

    Parameters
    ----------
    rows : TokenRows
        The reference corpus; neither BOS nor a chat template's constant beginning is trained on.
    frozen : {"W_dec", "W_enc"}, optional
        Matrix whose directions stay as they were initialized; norms are folded in when the SAE is saved. With one seed,
        the initialization and the batches are those of the SAE without it.
    """
    metadata = {
        "model_name": Path(str(language.model.name_or_path)).name,
        "hook_name": hook_name,
        "prepend_bos": language.prepend_bos,
        "context_size": rows.tokens.shape[1],
    }
    fit_sae(options, corpus_activations(language, rows, hook_name), metadata, folder, seed=seed, frozen=frozen)


def fit_sae(
    options: config.TrainSae,
    activations: torch.Tensor,
    metadata: dict[str, Any],
    folder: str | Path,
    *,
    seed: int,
    frozen: str | None = None,
) -> None:
    """Train a dictionary of activations (n, d_in), in random batches, and write it to `folder`, atomically."""
    from sae_lens import LoggingConfig, SAETrainer
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata

    from isaerft.subjects.sparsity import TargetTrainer, untrained_sae

    torch.manual_seed(seed)
    steps, device = max(1, options.tokens // options.batch_size), activations.device
    common: dict[str, Any] = {
        "d_in": activations.shape[1],
        "d_sae": options.d_sae,
        "normalize_activations": "expected_average_only_in",
        "metadata": SAEMetadata(**metadata),
    }
    sae = untrained_sae(options, steps, common)
    if frozen is not None:
        sae.get_parameter(frozen).requires_grad_(False)
    # The card of an SAE whose L0 was steered has the L0 of the last window, not that of the way there.
    window = {"feature_sampling_window": max(1, steps // 8)} if options.is_steered else {}
    parts: dict[str, Any] = {
        "cfg": SAETrainerConfig(
            total_training_samples=steps * options.batch_size,
            train_batch_size_samples=options.batch_size,
            lr=options.learning_rate,
            lr_end=options.learning_rate * FINAL_LEARNING_RATE_FACTOR,
            lr_scheduler_name="cosineannealing",
            dead_feature_window=DEAD_AFTER_STEPS,
            device=str(device),
            logger=LoggingConfig(log_to_wandb=False),
            **window,
        ),
        "sae": sae.to(device),
        "data_provider": _batches(activations, options.batch_size, seed),
    }
    trainer = TargetTrainer(options.l0 or 0, **parts) if options.is_steered else SAETrainer(**parts)
    trainer.fit()
    _save(sae.save_inference_model, folder)


def _save(save: Callable[[str], object], folder: str | Path) -> None:
    """Write an SAE's folder; SAELens gives the options of its card another order in each process."""
    with replacing(folder) as temporary:
        save(str(temporary))
        write_json(temporary / CARD, dict(sorted(read_json(temporary / CARD).items())))


def corpus_activations(language: LoadedModel, rows: TokenRows, hook_name: str, batch_size: int = 64) -> torch.Tensor:
    """Return the hook's activation on the corpus without constant tokens, (n_tokens, d_in) float32."""
    hook = find_hook(language.model, hook_name)
    kept, total = [], 0
    for tokens, mask in rows.batches(batch_size, "activations"):
        device = language.model.device
        activation = run_below(language.model, hook, tokens.to(device), mask.to(device)).activation
        kept.append(activation[language.content_mask(tokens, mask).to(device)].float())
        total += len(kept[-1])
        if total >= MAX_TRAINING_TOKENS:
            break
    return torch.cat(kept)


def _batches(activations: torch.Tensor, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield random batches without end, for SAELens' trainer."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(len(activations), (batch_size,), generator=generator)
        yield activations[chosen.to(activations.device)]


def check_loader(release: str, sae_id: str) -> None:
    """Refuse, before anything is downloaded, what SAELens does not load as one layer's linear dictionary.

    Raises
    ------
    InputError
        It is a temporal SAE, or a layer of a cross-layer transcoder, whose decoders SAELens sums into one.
    """
    listed = saes_directory().listed(release, sae_id)
    if listed is None:
        return
    if listed.loader == "temporal":
        check_linear(f"{release}, {sae_id}", "temporal", "none")
    if listed.loader == "mntss_clt_layer_transcoder" or "clt" in listed.weights.path.split("/"):
        raise InputError(
            f"SAE ({release}, {sae_id}) is a layer of a cross-layer transcoder: its latents write to every later layer,"
            " and SAELens sums these decoders into one, which reconstructs nothing",
            remedy="choose a transcoder of one layer",
        )
