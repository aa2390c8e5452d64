r"""Attach an adapter, change a latent by hand, and generate with and without it.

python examples/library/generate.py
python examples/library/generate.py --model openai-community/gpt2 --center \
    --sae gpt2-small-res-jb:blocks.8.hook_resid_pre
"""

import torch
from start import arguments, begin, with_bos

import isaerft

options = arguments(__doc__)
model, tokenizer, sae = begin(options)
attached = isaerft.attach(model, sae, "bias", name="steer", center_writing_weights=options.center)
bias = attached.adapter("steer").bias
with torch.no_grad():
    bias[7] = 20.0  # latent 7 up, everywhere

prompt = tokenizer(with_bos("tell me a story .", tokenizer), return_tensors="pt", return_token_type_ids=False)
settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
print("steered:", tokenizer.decode(model.generate(**prompt, **settings)[0]))
with attached.disabled():
    print("plain:  ", tokenizer.decode(model.generate(**prompt, **settings)[0]))

attached.save(options.out)
attached.detach()
print("saved under", options.out)
