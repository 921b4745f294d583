// rabbitmq-c as Debian carries it (librabbitmq-dev), and what Swift cannot import or does not find: variadic functions.
#pragma once
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <stddef.h>
#include <sys/time.h>

static inline amqp_rpc_reply_t crabbitmq_login_plain(amqp_connection_state_t state, const char *vhost, int frame_max, int heartbeat,
                                                     const amqp_table_t *properties, const char *user, const char *password) {
    return amqp_login_with_properties(state, vhost, 0, frame_max, heartbeat, properties, AMQP_SASL_METHOD_PLAIN, user, password);
}

// OpenSSL, which rabbitmq-c's TLS socket is made of. Its own headers are not included: they name the same types as BoringSSL's, which another package of the
// servers brings, and one program that imports both would mix them up. `void *` stands for pointers to OpenSSL's structures.
void *SSL_get_SSL_CTX(const void *ssl);
void *SSL_CTX_get_ex_data(const void *context, int index);
int SSL_CTX_set_ex_data(void *context, int index, void *data);
void SSL_CTX_set_info_callback(void *context, void (*callback)(const void *ssl, int where, int value));
void SSL_CTX_set_verify(void *context, int mode, void *callback);
int SSL_CTX_set_default_verify_paths(void *context);
void *SSL_CTX_get0_param(void *context);
long SSL_CTX_ctrl(void *context, int command, long value, void *pointer);
int X509_VERIFY_PARAM_set1_host(void *parameters, const char *name, size_t length);
int X509_VERIFY_PARAM_set1_ip_asc(void *parameters, const char *address);
const char *X509_verify_cert_error_string(long error);
int SSL_read_ex(void *ssl, void *buffer, size_t count, size_t *read);
int SSL_write_ex(void *ssl, const void *buffer, size_t count, size_t *written);
int SSL_get_error(const void *ssl, int result);
long SSL_get_verify_result(const void *ssl);
const char *SSL_alert_desc_string_long(int value);
unsigned long ERR_peek_last_error(void);
const char *ERR_reason_error_string(unsigned long error);
void ERR_clear_error(void);
