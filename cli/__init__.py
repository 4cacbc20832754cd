"""The command line: LightningCLI with a run folder, forced callbacks, and errors that people can read."""

COMMANDS = ("fit", "validate", "test", "predict", "compare")
