"""Train an adapter with transformers' Trainer; the loss falls on the replies alone.

python examples/library/trainer.py --out out
"""

from start import PAIRS, arguments, begin, with_bos
from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments

import isaerft

options = arguments(__doc__)
model, tokenizer, sae = begin(options)
attached = isaerft.attach(model, sae, options.adapter, center_writing_weights=options.center)

rows = []
for pair in PAIRS:
    prompt = tokenizer(with_bos(pair["prompt"], tokenizer))["input_ids"]
    reply = tokenizer(" " + pair["chosen"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    rows.append({"input_ids": prompt + reply, "labels": [-100] * len(prompt) + reply})

trainer = Trainer(
    model,
    TrainingArguments(
        options.out,
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=4,
        save_steps=options.steps,
        logging_steps=max(1, options.steps // 3),
        report_to=options.report_to,
        disable_tqdm=True,
    ),
    train_dataset=rows,
    eval_dataset=rows,
    data_collator=DataCollatorForTokenClassification(tokenizer),
)
before = trainer.evaluate()["eval_loss"]
trainer.train()
print(f"loss {before:.3f} -> {trainer.evaluate()['eval_loss']:.3f}")
with attached.disabled():
    print(f"disabled again: {trainer.evaluate()['eval_loss']:.3f}")
print(f"checkpoint-{options.steps} and its adapters are under", options.out)
