import io.unitycatalog.server.UnityCatalogServer;

/**
 * The server on one port of the loopback interface. Its own main class adds a forwarder that
 * listens on every interface.
 */
public class Serve {
  public static void main(String[] arguments) {
    UnityCatalogServer.builder().port(Integer.parseInt(arguments[0])).build().start();
  }
}
