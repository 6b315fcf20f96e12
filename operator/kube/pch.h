// cpprestsdk's headers cost 4 s a unit; compiled once.
#ifndef ECHELON_OPERATOR_KUBE_PCH_H_
#define ECHELON_OPERATOR_KUBE_PCH_H_

#include <cpprest/http_client.h>
#include <pplx/threadpool.h>

#endif  // ECHELON_OPERATOR_KUBE_PCH_H_
