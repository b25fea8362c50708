"""The built-in image model: grey 28x28 pictures of clothing, class-conditional (Fashion-MNIST).

Imports nothing, so that naming the model is cheap; ``backbone`` is what a campaign uses, ``training`` is what
``pilotwave train image`` runs.
"""
