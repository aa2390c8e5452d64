"""Train an adapter with TRL's DPOTrainer; the reference is the same model with the adapter disabled.

python examples/library/dpo_trainer.py --out out
"""

from datasets import Dataset
from start import PAIRS, arguments, begin, with_bos
from trl import DPOConfig, DPOTrainer

import isaerft

options = arguments(__doc__)
model, tokenizer, sae = begin(options)
attached = isaerft.attach(model, sae, options.adapter, center_writing_weights=options.center)
rows = Dataset.from_list(
    [
        {
            "prompt": with_bos(pair["prompt"], tokenizer),
            "chosen": " " + pair["chosen"],
            "rejected": " " + pair["rejected"],
        }
        for pair in PAIRS
    ]
)
trainer = DPOTrainer(
    model,
    ref_model=attached.ref_model(),
    args=DPOConfig(
        options.out,
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=4,
        save_steps=options.steps,
        logging_steps=max(1, options.steps // 3),
        bf16=False,
        report_to=options.report_to,
        disable_tqdm=True,
    ),
    train_dataset=rows,
    eval_dataset=rows,
    processing_class=tokenizer,
)
before = trainer.evaluate()
trainer.train()
after = trainer.evaluate()
for name in ("eval_loss", "eval_rewards/margins"):
    print(f"{name} {before[name]:.3f} -> {after[name]:.3f}")
attached.save(f"{options.out}/adapters")
print("adapters saved under", f"{options.out}/adapters")
