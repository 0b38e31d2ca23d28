/* BYE: the other side closes. */
#include "server/session/state.h"

void handle_bye(struct coordinator *c, struct peer *peer, const struct msg_bye *bye)
{
    peer_detach(c, peer, bye->text[0] ? bye->text : "goodbye");
    peer_doom(c, peer);
}
