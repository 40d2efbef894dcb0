import { Bell, BellOff } from 'lucide-react';
import { useState } from 'react';
import { notificationPermission, notificationsOn, setNotifications } from '@/app/notify';
import { Button } from '@/ui/button';
import { Card } from '@/ui/list';
import { Notice } from '@/ui/notice';
import { Status } from '@/ui/status';
import { SettingsPage } from './frame';

/** Turns the browser's notifications on and off; the browser is asked by the button, never before. */
export function NotificationSettings() {
  const [permission, setPermission] = useState(notificationPermission);
  const [on, setOn] = useState(notificationsOn);
  const change = (next: boolean) => {
    setNotifications(next);
    setOn(next);
  };
  const ask = async () => {
    const answer = permission === 'granted' ? permission : await Notification.requestPermission();
    setPermission(answer);
    change(answer === 'granted');
  };
  const working = on && permission === 'granted';
  return (
    <SettingsPage
      title="Notifications"
      lead="When an agent needs you, has failed or has finished, and no tab of this page is in view. This browser only."
    >
      <Card className="flex flex-col gap-4 p-4">
        <div className="flex flex-wrap items-center gap-3">
          <Status
            kind={working ? 'ready' : 'idle'}
            word={working ? 'On' : 'Off'}
            className="min-w-0 flex-1 text-base"
          />
          {working ? (
            <Button icon={BellOff} onClick={() => change(false)}>
              Turn off
            </Button>
          ) : (
            <Button
              variant="primary"
              icon={Bell}
              disabled={permission === 'unsupported' || permission === 'denied'}
              onClick={() => void ask()}
            >
              Turn on
            </Button>
          )}
        </div>
        {permission === 'denied' && (
          <Notice>
            This browser does not let the page notify you. Allow it in what the browser keeps about this site,
            left of the address, then come back.
          </Notice>
        )}
        {permission === 'unsupported' && (
          <Notice>
            This browser has no notifications here. Most have them only over https, or on the machine itself.
          </Notice>
        )}
        <p className="text-sm text-fg-2">
          A notification shows the session’s name and the beginning of what the agent wants or said. Others
          who see your screen may read it.
        </p>
      </Card>
    </SettingsPage>
  );
}
