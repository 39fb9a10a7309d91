"""The MLflow view of a run, with the ledger in its description."""

from functools import partial

from analysis.text.markdown import describe_result
from search.mlflow.store import Store

connect_described = partial(Store, describe_result=describe_result)
"""Connects to an MLflow store and describes finished runs by their ledger."""
