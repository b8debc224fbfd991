"""Swap SMOTE for DiffusionBalancer on long-tailed digits, and look at what it draws."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from imblearn.over_sampling import SMOTE
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from sklearn_diffult import DiffusionBalancer, make_long_tailed

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.5, stratify=y, random_state=0
)
X_train, y_train = make_long_tailed(X_train, y_train, 12, n_max=60, random_state=0)
print("rows per class:", np.bincount(y_train))


def score(X, y, sample_weight=None):
    classifier = LogisticRegression(max_iter=1000).fit(X, y, sample_weight=sample_weight)
    return balanced_accuracy_score(y_test, classifier.predict(X_test))


print(f"as it is             balanced accuracy {score(X_train, y_train):.3f}")

# What many notebooks have today ...
X_smote, y_smote = SMOTE(k_neighbors=3, random_state=0).fit_resample(X_train, y_train)
print(f"SMOTE                balanced accuracy {score(X_smote, y_smote):.3f}")

# ... and the line to change. Few steps and no classifier-based filter, so that this runs in
# seconds; the defaults take minutes and do better.
balancer = DiffusionBalancer(
    image_shape=(8, 8), n_steps=200, batch_size=32, random_state=0, verbose=1
)
X_res, y_res = balancer.fit_resample(X_train, y_train)
print(f"DiffusionBalancer    balanced accuracy {score(X_res, y_res):.3f}")

# Synthetic rows are worth less than real ones, which is what the weights say.
weighted = score(X_res, y_res, sample_weight=balancer.sample_weight_)
print(f"  with its weights   balanced accuracy {weighted:.3f}")

figure, axes = plt.subplots(2, 12, figsize=(9, 1.9))
figure.suptitle("The two rarest classes: real (left half) beside synthetic (right half)")
for ax in axes.flat:
    ax.axis("off")
for i, label in enumerate([8, 9]):
    for j, is_synthetic in enumerate([False, True]):
        rows = X_res[(y_res == label) & (balancer.synthetic_mask_ == is_synthetic)][:6]
        for ax, row in zip(axes[i, 6 * j :], rows, strict=False):
            ax.imshow(row.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
path = Path(__file__).parent / "output" / "quickstart_images.png"
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print("picture:", path)
