"""A tiny language model to train with Hugging Face's Trainer in a moment."""

import os

import torch
import transformers

ROWS, TOKENS, DIM = 8, 5, 4


class Texts(torch.utils.data.Dataset):
    """Sentences of a few tokens, some of them padding."""

    def __init__(self, count=ROWS * 12):
        g = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, 20, (count, TOKENS), generator=g)
        self.mask = torch.ones(count, TOKENS, dtype=torch.long)
        self.mask[::2, 3:] = 0

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, k):
        return {"input_ids": self.ids[k], "attention_mask": self.mask[k], "labels": int(self.ids[k, 0]) % 2}


def model():
    transformers.set_seed(0)
    sizes = {"hidden_size": DIM, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=8, output_hidden_states=True, **sizes)
    return transformers.BertForSequenceClassification(config)


def trained(folder, callback, *, steps=11, keep=None, resume=None, **arguments):
    settings = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=ROWS,
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        **{"report_to": [], "save_strategy": "no", **arguments},
    )
    trainer = transformers.Trainer(model(), settings, train_dataset=Texts())
    if callback:
        callback.attach(trainer)
    if keep is not None:
        trainer.model.register_forward_hook(lambda *given: keep.append(given), with_kwargs=True)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def logged(trainer):
    return {line["step"]: line for line in trainer.state.log_history if "collapse/samples" in line}


def pooled(calls):
    rows = []
    for _, _, inputs, outputs in calls:
        kept = inputs["attention_mask"].unsqueeze(-1)
        rows.append((outputs.hidden_states[-1].detach() * kept).sum(1) / kept.sum(1))
    return torch.cat(rows)


def processes(rank, meeting, folder):
    """Train on one of two processes, and save the report, the rows of the window and the number of logged reports."""
    from dyncollapse.integrations.transformers import CollapseCallback

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # not used: the group is there
    calls, callback = [], CollapseCallback("hidden_states", every=4)
    trainer = trained(folder, callback, steps=4, keep=calls, ddp_backend="gloo")
    torch.save((callback.report.as_values(), pooled(calls[-3:]), len(logged(trainer))), f"{folder}/out{rank}")
    torch.distributed.destroy_process_group()
