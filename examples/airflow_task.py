"""A DAG of Airflow: mirror every night; retry what may pass, and fail at once where only a person can help.

Copy it into the folder of your DAGs. The worker needs the identity in its environment, as the command line does.
This is for Airflow 3; Airflow 2 has the same names in `airflow.decorators` and `airflow.exceptions`.
"""

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

import tilesync as ts


@task(retries=5, retry_delay=timedelta(minutes=10), execution_timeout=timedelta(hours=6))
def mirror_tiles(imodel: str, dest: str) -> dict[str, Any]:
    """Mirror the newest export; a retry continues where the attempt before stopped."""
    try:
        result = ts.mirror(imodel, dest, retry_for=timedelta(minutes=5))
    except ts.TilesyncError as error:
        if error.is_retryable:  # the service is down, no export is finished yet, another run holds the destination
            raise
        raise AirflowFailException(f"{error}. {error.hint}") from error  # such as a refused identity, a full disk
    return result.to_dict()  # an XCom: plain values, without secrets


@dag(schedule="@daily", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1)
def mirror_nightly() -> None:
    """Mirror one iModel into one destination."""
    mirror_tiles(os.environ["IMODEL"], os.environ["DEST"])


mirror_nightly()
