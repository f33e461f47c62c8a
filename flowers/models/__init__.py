"""Networks: pure ``nn.Module``, from images in [0, 1] to logits."""

from flowers.models.average_views import AverageViews, Views
from flowers.models.classifier import ImageClassifier, Standardize
from flowers.models.flower_cnn import Norm, flower_cnn
from flowers.models.pretrained import preprocessing, pretrained
from flowers.models.stages import split_stages
