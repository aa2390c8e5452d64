"""Validate the input of a statistic before anything is computed: shapes, types, NaN, degenerate labels."""

from __future__ import annotations

from numbers import Real
from typing import Literal, TypedDict, get_args

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError, shown, unknown_name

Alternative = Literal["greater", "less", "two-sided"]


class NullOptions(TypedDict, total=False):
    """The options of a test that say which exchanges of labels its null holds, for n latents.

    Attributes
    ----------
    strata, clusters : (n,) int
    confounds : (k, n) float
    """

    strata: np.ndarray
    clusters: np.ndarray
    confounds: np.ndarray


def as_change(change: ArrayLike) -> np.ndarray:
    """Return `change` as (n,) float64, n >= 2.

    Raises
    ------
    InputError
        It is not one-dimensional, holds NaN or infinity, has fewer than two latents, or is constant (no latent
        changed more than another, so no statistic of agreement is defined).
    """
    array = as_finite("change", change, n_dims=1)
    if array.size < 2:
        raise InputError(f"change holds {array.size} latents", allowed="two or more", remedy="widen the universe")
    if array.min() == array.max():
        raise InputError(
            f"change is {array[0]:g} for all {array.size} latents, so no latent changed more than another",
            allowed="at least two different values",
            remedy="check that the adapter was trained and that the measure sees it",
        )
    return array


def as_finite(name: str, values: ArrayLike, *, n_dims: int) -> np.ndarray:
    """Return `values` as float64 with `n_dims` dimensions; NaN or infinity is an `InputError` that counts them."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} is not numeric: {shown(values)}", allowed="an array of numbers") from None
    if array.ndim != n_dims:
        raise InputError(f"{name} has shape {array.shape}", allowed=f"an array of {n_dims} dimension(s)")
    n_bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if n_bad:
        raise InputError(
            f"{name} holds {n_bad} NaN or infinite of {array.size} values",
            allowed="finite numbers",
            remedy="drop those latents from the universe and count them, rather than guess a value",
        )
    return array


def as_expected(expected: ArrayLike, n: int) -> np.ndarray:
    """Return `expected` as (n,) bool with at least one latent expected and one not.

    Raises
    ------
    InputError
        The shape differs, a value is neither 0 nor 1, or all or none are expected.
    """
    array = as_binary(expected, n)
    if array.ndim != 1:
        raise InputError(f"expected has shape {array.shape}", allowed=f"({n},)")
    n_expected = int(np.count_nonzero(array))
    if n_expected in (0, n):
        raise InputError(
            f"{'none' if n_expected == 0 else 'all'} of the {n} latents are expected to change",
            allowed="some expected and some not",
            remedy="change the judge's threshold, or leave this behavior out and say so",
        )
    return array


def as_binary(expected: ArrayLike, n: int) -> np.ndarray:
    """Return `expected` as (..., n) bool; values other than 0, 1, False and True are an `InputError`."""
    array = np.asarray(expected)
    if array.ndim == 0 or array.shape[-1] != n:
        raise InputError(f"expected has shape {array.shape}", allowed=f"(..., {n}), one entry per latent of change")
    if array.dtype == bool:
        return array
    flat = as_finite("expected", array.ravel(), n_dims=1)
    if not np.isin(flat, (0.0, 1.0)).all():
        raise InputError(
            f"expected holds the value {flat[~np.isin(flat, (0.0, 1.0))][0]:g}",
            allowed="bool, or 0 and 1",
            remedy="threshold it, or use statistic='spearman' for graded expectations",
        )
    return array.astype(bool)


def as_graded(expected: ArrayLike, n: int) -> np.ndarray:
    """Return `expected` as (n,) float64; NaN or the same value for all latents is an `InputError`."""
    array = as_finite("expected", expected, n_dims=1)
    if array.size != n:
        raise InputError(f"expected has shape {array.shape}", allowed=f"({n},)")
    if array.min() == array.max():
        raise InputError(
            f"expected is {array[0]:g} for all {n} latents",
            allowed="at least two different values",
            remedy="use a judge that tells latents apart, or leave this behavior out and say so",
        )
    return array


def as_groups(name: str, groups: ArrayLike | None, n: int) -> np.ndarray:
    """Return strata or clusters as (n,) int64 codes from 0, in the order of the given ids; None is one code per `name`.

    Strata default to a single stratum, clusters to one latent each.
    """
    if groups is None:
        return np.zeros(n, dtype=np.int64) if name == "strata" else np.arange(n, dtype=np.int64)
    array = np.asarray(groups)
    if array.shape != (n,):
        raise InputError(f"{name} has shape {array.shape}", allowed=f"({n},), one id per latent")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"{name} has dtype {array.dtype}", allowed="integer ids", remedy="see strata_of and clusters_of"
        )
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def as_alternative(alternative: str) -> Alternative:
    """Return `alternative` if it is one of scipy's three; otherwise an `InputError` that lists them."""
    if alternative not in get_args(Alternative):
        raise unknown_name("alternative", alternative, get_args(Alternative))
    return alternative  # type: ignore[return-value]


def as_count(name: str, value: float, *, least: int = 1) -> int:
    """Return `value` as an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Real) or value != value // 1 or value < least:
        raise InputError(f"{name} is {shown(value)}", allowed=f"an integer of at least {least}")
    return int(value)


def as_share(name: str, value: float) -> float:
    """Return `value` if it lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(f"{name} is {shown(value)}", allowed="a number between 0 and 1, both excluded")
    return float(value)
