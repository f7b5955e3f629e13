"""Ends a training in a chosen step, for tests of going on after an interruption."""

import os
import signal

from transfer.protocols import finetune_training


class StopAt:
    """Ends the training in the given step: by an exception, or by a signal that cannot be caught."""

    def __init__(self, step, kill=False):
        self.step, self.kill, self.taken, self.real = step, kill, 0, finetune_training.training_step

    def __call__(self, *given):
        self.taken += 1
        if self.taken == self.step:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        return self.real(*given)
