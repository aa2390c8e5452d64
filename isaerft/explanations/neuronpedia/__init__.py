"""Explanations from Neuronpedia: the bulk export first, batches of latents for its gaps, single latents last.

identifiers.py   which source at Neuronpedia an SAE is
body.py          answers, bounded and checked, before anything reads them
client.py        requests at a bounded rate, tried again where that can help
export.py        the bulk export on S3
latents.py       POST /features and GET /feature
store.py         what is known already, in a file that outlives a kill
fetch.py         the three routes, in order
choice.py        one explanation of a latent's several
source.py        the registered source
"""
