"""Running the stages of a plan, here or on a cluster, and the record of what is done."""
