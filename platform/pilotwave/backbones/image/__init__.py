"""Image models: small square pictures, class-conditional. Built in: clothes, grey 28x28 (Fashion-MNIST).

Imports nothing, so that naming the model is cheap; ``backbone`` is what a campaign uses, ``training`` and
``judge_training`` are what ``pilotwave train image``, ``emoji`` and ``judge`` run, ``quality`` measures.
"""
