"""Claims checked by workers."""

from concurrent.futures import BrokenExecutor, Executor, Future

from dyncollapse.claims import CLAIMS, run_check
from dyncollapse.claims.run import check_claims
from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.executors import local_workers

QUICK = [claim for claim in CLAIMS if claim.name in ("lemma-1", "lemma-2-psd", "effective-rank")]


class Dying(Executor):
    """Every process dies at its work."""

    def submit(self, _work, /, *_args, **_kwargs):
        future = Future()
        future.set_exception(BrokenExecutor("killed"))
        return future


def test_processes_measure_what_this_one_does():
    here = {claim.name: run_check(claim) for claim in QUICK}
    there = {result.claim.name: result for result in check_claims(QUICK, local_workers(2))}
    assert set(there) == set(here)
    for name, result in there.items():
        assert result.claim is here[name].claim
        assert (result.measured, result.error) == (here[name].measured, None)
        assert result.seconds > 0


def test_without_workers_claims_are_checked_one_after_another():
    assert [result.claim for result in check_claims(QUICK)] == QUICK


def test_a_claim_whose_process_dies_is_a_surprise_and_hides_no_other():
    results = list(check_claims(QUICK, Workers(Dying, 2)))
    assert {result.claim.name for result in results} == {claim.name for claim in QUICK}
    assert all(result.surprising and result.error == "its process died: killed" for result in results)
