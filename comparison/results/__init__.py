"""The figures of a comparison: rows, statistics, tables and the sentence that sums them up."""
