"""Attach an adapter to a tiny model and SAE, train it, and list the latents that changed most.

python examples/quickstart.py
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import isaerft
from isaerft.subjects.dictionary import Dictionary

# A random model and a random SAE stand in for yours; nothing is downloaded.
torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
model = LlamaForCausalLM(LlamaConfig(vocab_size=50, bos_token_id=1, initializer_range=0.2, **sizes))
decoder = torch.randn(128, 32) / 32**0.5
weights = {"W_enc": decoder.T.clone(), "b_enc": torch.full((128,), -1.0), "W_dec": decoder, "b_dec": torch.zeros(32)}
kind = {"threshold": None, "gate": None, "k": None, "apply_b_dec_to_input": True, "center": False}  # a ReLU SAE
sae = Dictionary(**weights, **kind, hook_name="blocks.1.hook_resid_post", neuronpedia_id="")

attached = isaerft.attach(model, sae, "bias")  # the model is frozen; only the adapter trains
adapter = attached.adapter()

# The behavior: whatever the text, the next token is 7. Labels of -100 do not count.
tokens = torch.cat([torch.ones(16, 1, dtype=torch.long), torch.randint(2, 50, (16, 8))], dim=1)
tokens[:, 5:] = 7
labels = tokens.masked_fill(tokens != 7, -100)
optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
for step in range(61):
    loss = model(input_ids=tokens, labels=labels).loss
    if step % 20 == 0:
        print(f"step {step:2d}  loss {loss.item():.3f}")
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

# A latent changes the model by its change of activation times its decoder norm.
change = adapter.latent_parameter().detach() * sae.decoder_norm
for latent in change.abs().topk(5).indices.tolist():
    print(f"latent {latent:3d}  change {change[latent].item():+.3f}")
