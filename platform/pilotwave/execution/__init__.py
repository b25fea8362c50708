"""The loop's workers: oracle processes, the inline runtime, receipts."""
