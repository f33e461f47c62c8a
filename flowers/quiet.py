"""What Lightning says for its own sake, or wrongly."""

from __future__ import annotations

import logging
import warnings


def quieten_lightning() -> None:
    """Leave it out."""
    # With the cache no worker is needed, and without it their number is an option.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Evaluation leaves out the callbacks that only training needs, on purpose.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
    warnings.filterwarnings("ignore", message=".*loading a checkpoint outside the 'fit' stage.*")
    # The size of the model in the summary matters to nobody.
    warnings.filterwarnings("ignore", message="Precision .* is not supported by the model summary")
    # A resumed run goes on in its own folder, on purpose.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # Lightning's own use of a torch class that torch has since renamed.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_about_the_run)


def _is_about_the_run(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    noise = (
        "Tip:",
        "TPU available",
        "HPU available",
        "GPU available",
        "LOCAL_RANK: 0",
        "Restoring states from the checkpoint path",
        "to estimate number of stepping batches",
        "`Trainer.fit` stopped",
    )
    return not any(words in message for words in noise)
