/// A certificate for `localhost` and 127.0.0.1 that signs itself, and its key. Made for these tests, used nowhere else.
enum TestCertificate {
    static let certificate = """
        -----BEGIN CERTIFICATE-----
        MIIBmzCCAUGgAwIBAgIUBJh61JY4Oh97lxws0Ik4jHJfxlgwCgYIKoZIzj0EAwIw
        FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNzExNDg1N1oYDzIxMjYxMTAz
        MTE0ODU3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
        PQMBBwNCAARz6TLZl7HqdITG0y/E5MKUoUdeBMdqizzTfvifR+Pdy6wmNLWJDbyy
        oBzUP2fkqIS3pt/JOiHq2oL+nxtqMGe5o28wbTAdBgNVHQ4EFgQU6dhyIp1acLqs
        uvTAOVzWDeXGFyYwHwYDVR0jBBgwFoAU6dhyIp1acLqsuvTAOVzWDeXGFyYwDwYD
        VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
        zj0EAwIDSAAwRQIhAL0uGxOxfBtTXkJ0x5JGiPUPDKRSP5nr6zP3CrABSGaqAiAl
        RRmgfM5ag/u96pOcmoZqCD1Oz574VqNZoHwAAJPnaA==
        -----END CERTIFICATE-----
        """

    static let key = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgu8hX1icXVNJeMuNX
        umMlbHnkwEoXD5eLsjA3Dlax4pOhRANCAARz6TLZl7HqdITG0y/E5MKUoUdeBMdq
        izzTfvifR+Pdy6wmNLWJDbyyoBzUP2fkqIS3pt/JOiHq2oL+nxtqMGe5
        -----END PRIVATE KEY-----
        """
}
