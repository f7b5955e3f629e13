"""The names of the methods, for command lines that start without torch."""

OCCLUSION = "occlusion"
METHOD_NAMES = ("gradcam", "gradcam++", "hirescam", "rollout", "gradient_rollout", OCCLUSION)
