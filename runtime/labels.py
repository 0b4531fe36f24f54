"""What every label map shares."""

IGNORE = 255  # the label of what neither supervises nor scores
