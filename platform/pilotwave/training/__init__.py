"""What training runs of built-in models share: averaged weights, shipped weight files, progress reports."""
