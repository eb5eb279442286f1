"""Makes trials of `gpu-check` with two parts of the processor for CPU and GPU, in this process.

    python tests/helpers/checking.py OUTDIR [flags of run.py]

leaves gpu-check.json in a folder that there is.
"""

import json
import sys
from pathlib import Path

from dreamer_bird.commands.gpu_check import command, trials


def main(outdir, *words):
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, parts)
    command.in_process = lambda trial, limit, *given: json.loads(
        json.dumps(trials.TRIALS[trial](*json.loads(json.dumps(given))))
    )
    check = command.Check(600, Path(outdir), echo=True)
    words = list(words)
    for xla in ("false", "true"):
        command.agree(check, words, "CPU:0", "CPU:1", "float32", xla)
        command.overflow(check, words, "CPU:1", xla)
    one, two = ([names, command.PLAIN] for names in (["CPU:0"], ["CPU:0", "CPU:1"]))
    command.compare(check, "devices", "two as one", words, one, two)


if __name__ == "__main__":
    main(*sys.argv[1:])
