use agentkeep_core::{Reservation, ReservationId};

use crate::{
    auth::Caller,
    error::Result,
    resource::{Found, Id},
};

/// Get a reservation.
#[utoipa::path(get, path = "/reservations/{id}", tag = "reservations", params(("id" = ReservationId, Path, description = "Its id")),
    responses((status = 200, description = "The reservation", body = Reservation)))]
pub(super) async fn get(caller: Caller, Id(id): Id<ReservationId>) -> Result<Found<Reservation>> {
    Found::or_not(caller.tenant.budgets().get_reservation(id).await?, id)
}
