"""What a comparison shows: crops of test images, samples of distilled sets, and their spectra."""
