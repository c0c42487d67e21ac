"""Images, their splits, and the batches made from them."""
