import pytest

from isaerft import config


@pytest.fixture(scope="session")
def world(tmp_path_factory, tiny):
    """A testbed model after a few steps, with an SAE whose first latents read and write what is known."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from isaerft.subjects.dictionary import load_dictionary
    from isaerft.subjects.load import LoadedModel, LoadedSubject
    from isaerft.subjects.points import find_hook
    from isaerft.testbed.model import hook_name, train_model

    folder = tmp_path_factory.mktemp("testbed")
    sizes = config.Testbed(steps=3, batch_size=8, d_model=16, n_layers=2)
    loss = train_model(sizes, 0, folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval().requires_grad_(False)
    language = LoadedModel(model, AutoTokenizer.from_pretrained(folder / "model"), True)
    weights = tiny.random_sae(16, 12)
    weights["b_enc"][1:] = -0.02
    sae = tiny.write_sae(folder / "sae", weights, hook_name=hook_name(sizes))
    dictionary = load_dictionary(sae)
    subject = LoadedSubject(language, dictionary, find_hook(model, dictionary.hook_name))
    return subject, loss, folder
