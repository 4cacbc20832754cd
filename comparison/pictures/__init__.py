"""What a comparison shows: crops of test images and samples of distilled sets."""
