"""Options of `pretrain run` in the lines of its siblings: left out where they have no effect, otherwise refused with what to write."""

NO_RUN = "no run is written"
WITHOUT_EFFECT = {
    "plan": {"--out": NO_RUN, "--continue": NO_RUN},
    "preview": {"--name": NO_RUN, "--continue": NO_RUN, "--device": "views are drawn on the CPU"},
    "submit": {"--continue": "a job always continues its run"},
    "stage": {"--name": NO_RUN, "--continue": NO_RUN, "--out": NO_RUN, "--device": "files are copied"},
    "resume": {"--continue": "a run is always continued"},
}
ADVICE = {
    "submit": {
        "--device": "A job uses the GPUs that it requests: write --gpus 1, or --gpus 0 for a job on CPUs",
        "--out": "Jobs keep their runs in runs/ below the working folder; the environment variable ISOGRAFT_HOME names another folder",
    },
    "preview": {"--sweep": "A sweep has one recipe: preview it without --sweep, or with one of the values as a setting"},
    "resume": {"--name": "A run keeps its name: write `pretrain resume NAME`"},
}
