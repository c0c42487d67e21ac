"""MobileNetV2: its structure as data, building, loading and counting it."""
