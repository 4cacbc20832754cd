"""From a plan to single commands, each with a key by which it is known to be done."""
