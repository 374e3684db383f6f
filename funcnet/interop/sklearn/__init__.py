"""scikit-learn: nets as ``Classifier`` and ``Regressor``, for pipelines, cross-validation and hyperparameter search.

>>> from sklearn.datasets import load_iris
>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.preprocessing import StandardScaler
>>> from funcnet.interop.sklearn import Classifier
>>> x, y = load_iris(return_X_y=True)
>>> make_pipeline(StandardScaler(), Classifier()).fit(x, y).score(x, y) > 0.9
True
"""

try:
    from funcnet.interop.sklearn.classifier import Classifier as Classifier
    from funcnet.interop.sklearn.regressor import Regressor as Regressor
except ModuleNotFoundError as error:
    _rule = "scikit-learn must be installed; pip install 'funcnet[sklearn]' installs it"
    raise ImportError(f"{__name__}: {_rule}") from error
