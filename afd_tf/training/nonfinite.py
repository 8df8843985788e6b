"""What is done about a loss that is NaN or infinite."""

import math

import keras


class NonFiniteLossError(FloatingPointError):
    """A loss became NaN or infinite; training cannot go on from here."""


class StopOnNonFinite(keras.callbacks.Callback):
    """Stop with an error at the first NaN or infinite loss.

    Losses in the logs are running means, so that a bad step stays visible until the end
    of its epoch, and nothing is saved before that is looked at.

    Args:
        saver: `Saver`, which knows what checkpoint there is.
    """

    def __init__(self, saver):
        super().__init__()
        self._saver = saver

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._batch = epoch, -1

    def on_train_batch_end(self, batch, logs=None):
        self._batch = batch
        self.look(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.look(logs)

    def look(self, logs):
        """Look at metrics after the step that was done last.

        Args:
            logs: dict from metric to number.

        Raises:
            NonFiniteLossError: if a loss is not finite.
        """
        bad = {
            key: value
            for key, value in (logs or {}).items()
            if key.endswith(("loss", "cross_entropy", "kl"))
            and not math.isfinite(value)
        }
        if not bad:
            return
        names = self.model.network_names
        owners = {owner(key.removeprefix("val_"), names) for key in bad}
        networks = [str(network) for network in names if network in owners]
        whose = f" of {' and '.join(networks)}" if networks else ""
        self._saver.wait()
        last = self._saver.last
        kept = (
            f"The checkpoint of {last} is kept." if last else "Nothing was saved yet."
        )
        key, value = next(iter(bad.items()))
        raise NonFiniteLossError(
            f"Loss{whose} is {value} ({key}) at epoch {self._epoch + 1}, step "
            f"{self._batch + 1}. {kept} Lower a learning rate, or use "
            "precision='float32'."
        )


def owner(key, network_names):
    """Return the network whose metric a key such as `resnet20_2_loss` is, or None."""
    owners = [name for name in network_names if key.startswith(f"{name}_")]
    return max(owners, key=len, default=None)
